/* The function that Python calls: it iterates over arrays of any strides, and calls run() for each
   row. compiled.py writes before this text:

   run(layout, n, pointer)  computes n contiguous elements
   ACCESSES                 the number of chunks that run() reads and writes
   FIRST_OUTPUT             the number of chunks that it reads: the index of the first that it writes
   size                     bytes per element of each chunk
   LAYOUTS                  the number of specialized loops
   broadcast                for each layout, which chunks are one element instead of n; layout 0: none
   Array                    the structure of a NumPy array

   The few functions of Python that are used are declared here, as in its stable interface (PEP 384),
   so that no header has to be installed. */

enum { AXES = 8, TILE = ACCESSES <= 32 ? 128 : 4096 / ACCESSES, MIN_TO_RELEASE_GIL = 1 << 14 };

extern char *PyBytes_AsString(void *);
extern void *PyBool_FromLong(long), *PyCFunction_NewEx(void *, void *, void *);
extern void *PyEval_SaveThread(void);
extern void PyEval_RestoreThread(void *);

static void gather(char *to, const char *from, intptr_t stride, intptr_t n, intptr_t bytes)
{
    switch (bytes) {
    case 1: for (intptr_t i = 0; i < n; i++) to[i] = from[i * stride]; break;
    case 2: for (intptr_t i = 0; i < n; i++) memcpy(to + 2 * i, from + i * stride, 2); break;
    case 4: for (intptr_t i = 0; i < n; i++) memcpy(to + 4 * i, from + i * stride, 4); break;
    case 8: for (intptr_t i = 0; i < n; i++) memcpy(to + 8 * i, from + i * stride, 8); break;
    }
}

/* The layout with these strides; LAYOUTS if run() lacks it. */
static int layout_of(intptr_t n, const intptr_t *stride)
{
    for (int layout = 0; layout < LAYOUTS; layout++) {
        bool fits = true;
        for (int p = 0; p < ACCESSES && n > 1; p++)
            fits &= stride[p] == (broadcast[layout][p] ? 0 : size[p]);
        if (fits) return layout;
    }
    return LAYOUTS;
}

/* A row with other strides, in tiles: chunks that are not contiguous are copied. */
static void tiled(intptr_t n, char *const *pointer, const intptr_t *stride)
{
    uint64_t tile[ACCESSES][TILE];
    char *local[ACCESSES];
    for (intptr_t done = 0; done < n; done += TILE) {
        const intptr_t m = n - done < TILE ? n - done : TILE;
        for (int p = 0; p < ACCESSES; p++) {
            local[p] = pointer[p] + done * stride[p];
            if (stride[p] == size[p]) continue;
            gather((char *)tile[p], local[p], stride[p], m, size[p]);
            local[p] = (char *)tile[p];
        }
        run(0, m, local);
    }
}

/* `table`: the width of the chunks (0: that of the arrays), then for each chunk the index of its array
   and its start on the last axis. Returns whether it has run. */
static void *call(void *table, Array *const *arrays, intptr_t count)
{
    const intptr_t *entry = (const intptr_t *)PyBytes_AsString(table);
    for (int p = 0; p < ACCESSES; p++)
        if (entry[1 + 2 * p] >= count) return PyBool_FromLong(0);
    const Array *first_output = arrays[entry[1 + 2 * FIRST_OUTPUT]];
    const int axes = first_output->axes;
    char *pointer[ACCESSES];
    intptr_t shape[AXES], stride[AXES][ACCESSES], run_length[AXES], run_stride[AXES][ACCESSES];
    if (axes > AXES) return PyBool_FromLong(0);
    intptr_t total = 1;
    for (int k = 0; k < axes; k++) {
        shape[k] = k == axes - 1 && entry[0] ? entry[0] : first_output->shape[k];
        total *= shape[k];
    }
    for (int p = 0; p < ACCESSES; p++) {
        const Array *a = arrays[entry[1 + 2 * p]];
        const intptr_t start = entry[2 + 2 * p];
        if (a->axes > axes || !(a->flags & 0x0100)) return PyBool_FromLong(0); /* not aligned */
        pointer[p] = a->data;
        for (int k = 0; k < axes; k++) {
            const int j = k - (axes - a->axes);
            const intptr_t length = j < 0 ? 1 : a->shape[j];
            if (length == 1 && (p < FIRST_OUTPUT || shape[k] == 1)) { stride[k][p] = 0; continue; }
            if (k == axes - 1 ? start + shape[k] > length : shape[k] != length)
                return PyBool_FromLong(0);
            stride[k][p] = a->strides[j];
            if (k == axes - 1) pointer[p] += start * a->strides[j];
        }
    }
    if (total == 0) return PyBool_FromLong(1);

    /* Sort the axes by the stride of the first output, then merge axes that are contiguous. */
    int order[AXES], rank = 0, runs = 0;
    for (int k = axes - 1; k >= 0; k--) {
        if (shape[k] == 1) continue;
        int to = rank++;
        for (; to > 0 && stride[order[to - 1]][FIRST_OUTPUT] > stride[k][FIRST_OUTPUT]; to--)
            order[to] = order[to - 1];
        order[to] = k;
    }
    for (int r = 0; r < rank; r++) {
        const int k = order[r];
        bool joined = runs > 0;
        for (int p = 0; p < ACCESSES && joined; p++)
            joined = stride[k][p] == run_stride[runs - 1][p] * run_length[runs - 1];
        if (joined) { run_length[runs - 1] *= shape[k]; continue; }
        run_length[runs] = shape[k];
        memcpy(run_stride[runs++], stride[k], sizeof *run_stride);
    }
    if (runs == 0) { run_length[0] = 1; memset(run_stride[0], 0, sizeof *run_stride); runs = 1; }
    for (int p = FIRST_OUTPUT; p < ACCESSES; p++)
        if (run_length[0] > 1 && run_stride[0][p] != size[p]) return PyBool_FromLong(0);

    void *thread = total < MIN_TO_RELEASE_GIL ? 0 : PyEval_SaveThread();
    intptr_t index[AXES] = { 0 };
    const int layout = layout_of(run_length[0], run_stride[0]);
    for (int r = 0; r < runs;) {
        if (layout < LAYOUTS) run(layout, run_length[0], pointer);
        else tiled(run_length[0], pointer, run_stride[0]);
        for (r = 1; r < runs; r++) {
            for (int p = 0; p < ACCESSES; p++) pointer[p] += run_stride[r][p];
            if (++index[r] < run_length[r]) break;
            for (int p = 0; p < ACCESSES; p++) pointer[p] -= run_length[r] * run_stride[r][p];
            index[r] = 0;
        }
    }
    if (thread) PyEval_RestoreThread(thread);
    return PyBool_FromLong(1);
}

static struct { const char *name; void *call; int flags; const char *doc; } method
    = { "kernel", call, 0x0080 }; /* METH_FASTCALL */

void *bind(void *table) { return PyCFunction_NewEx(&method, table, 0); }
