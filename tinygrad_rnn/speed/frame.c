/* What Python calls: finds the runs of memory that all arrays of a kernel share, and calls run() for
   each. compiled.py writes before this text: run(way, n, at), which computes n elements; STRIPS, the
   number of those that it reads and writes; MODEL, the number that it reads, so the place of the
   first that it writes; size, their bytes an element; WAYS, in how many ways a run can lie in
   memory, and still, which strips have one element in it (what is broadcast along it) and not n, of
   which way 0 has none; OBJECT, the bytes of a Python object's head.

   The few functions and structures of Python and NumPy that are needed are declared here, as their
   stable interfaces have them (PEP 384; PyArrayObject_fields in NumPy's ndarraytypes.h), so that no
   header has to be installed. */

enum { AXES = 8, TILE = STRIPS <= 32 ? 128 : 4096 / STRIPS, LONG = 1 << 14 };

typedef struct {
    char object[OBJECT], *data;
    int axes;
    intptr_t *shape, *strides;
    void *base, *dtype;
    int flags;
} Array;

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

/* Which way the runs lie in memory; WAYS if it is none that run() knows. */
static int find(intptr_t n, const intptr_t *stride)
{
    for (int way = 0; way < WAYS; way++) {
        bool fits = true;
        for (int p = 0; p < STRIPS && n > 1; p++)
            fits &= stride[p] == (still[way][p] ? 0 : size[p]);
        if (fits) return way;
    }
    return WAYS;
}

/* A run that lies in another way, in tiles: strips that do not lie so are copied. */
static void tiled(intptr_t n, char *const *at, const intptr_t *stride)
{
    uint64_t tile[STRIPS][TILE];
    char *near[STRIPS];
    for (intptr_t done = 0; done < n; done += TILE) {
        const intptr_t m = n - done < TILE ? n - done : TILE;
        for (int p = 0; p < STRIPS; p++) {
            near[p] = at[p] + done * stride[p];
            if (stride[p] == size[p]) continue;
            gather((char *)tile[p], near[p], stride[p], m, size[p]);
            near[p] = (char *)tile[p];
        }
        run(0, m, near);
    }
}

/* `places`: the length of the last axis of the strips (0: that of the arrays), then for each strip its array and where it
   starts in the last axis of that. Returns whether it has run. */
static void *call(void *places, Array *const *arrays, intptr_t count)
{
    const intptr_t *place = (const intptr_t *)PyBytes_AsString(places);
    for (int p = 0; p < STRIPS; p++)
        if (place[1 + 2 * p] >= count) return PyBool_FromLong(0);
    const Array *model = arrays[place[1 + 2 * MODEL]];
    const int axes = model->axes;
    char *at[STRIPS];
    intptr_t shape[AXES], stride[AXES][STRIPS], lengths[AXES], steps[AXES][STRIPS];
    if (axes > AXES) return PyBool_FromLong(0);
    intptr_t total = 1;
    for (int k = 0; k < axes; k++) {
        shape[k] = k == axes - 1 && place[0] ? place[0] : model->shape[k];
        total *= shape[k];
    }
    for (int p = 0; p < STRIPS; p++) {
        const Array *a = arrays[place[1 + 2 * p]];
        const intptr_t start = place[2 + 2 * p];
        if (a->axes > axes || !(a->flags & 0x0100)) return PyBool_FromLong(0); /* not aligned */
        at[p] = a->data;
        for (int k = 0; k < axes; k++) {
            const int j = k - (axes - a->axes);
            const intptr_t length = j < 0 ? 1 : a->shape[j];
            if (length == 1 && (p < MODEL || shape[k] == 1)) { stride[k][p] = 0; continue; }
            if (k == axes - 1 ? start + shape[k] > length : shape[k] != length)
                return PyBool_FromLong(0);
            stride[k][p] = a->strides[j];
            if (k == axes - 1) at[p] += start * a->strides[j];
        }
    }
    if (total == 0) return PyBool_FromLong(1);

    /* The axes from the fastest to the slowest of the results, and those that are one run joined. */
    int order[AXES], rank = 0, runs = 0;
    for (int k = axes - 1; k >= 0; k--) {
        if (shape[k] == 1) continue;
        int to = rank++;
        for (; to > 0 && stride[order[to - 1]][MODEL] > stride[k][MODEL]; to--)
            order[to] = order[to - 1];
        order[to] = k;
    }
    for (int r = 0; r < rank; r++) {
        const int k = order[r];
        bool joined = runs > 0;
        for (int p = 0; p < STRIPS && joined; p++)
            joined = stride[k][p] == steps[runs - 1][p] * lengths[runs - 1];
        if (joined) { lengths[runs - 1] *= shape[k]; continue; }
        lengths[runs] = shape[k];
        memcpy(steps[runs++], stride[k], sizeof *steps);
    }
    if (runs == 0) { lengths[0] = 1; memset(steps[0], 0, sizeof *steps); runs = 1; }
    for (int p = MODEL; p < STRIPS; p++)
        if (lengths[0] > 1 && steps[0][p] != size[p]) return PyBool_FromLong(0);

    void *thread = total < LONG ? 0 : PyEval_SaveThread();
    intptr_t index[AXES] = { 0 };
    const int way = find(lengths[0], steps[0]);
    for (int r = 0; r < runs;) {
        if (way < WAYS) run(way, lengths[0], at);
        else tiled(lengths[0], at, steps[0]);
        for (r = 1; r < runs; r++) {
            for (int p = 0; p < STRIPS; p++) at[p] += steps[r][p];
            if (++index[r] < lengths[r]) break;
            for (int p = 0; p < STRIPS; p++) at[p] -= lengths[r] * steps[r][p];
            index[r] = 0;
        }
    }
    if (thread) PyEval_RestoreThread(thread);
    return PyBool_FromLong(1);
}

static struct { const char *name; void *call; int flags; const char *doc; } method
    = { "kernel", call, 0x0080 }; /* METH_FASTCALL */

void *bind(void *places) { return PyCFunction_NewEx(&method, places, 0); }
