/* The parts of a training step outside of the loop over time: the norm and the scaling of all
   gradients, the update of all parameters, the gradient of a table of rows, and the cross-entropy.

   The text follows loop_runtime.c, whose threads it uses, in one library. A function returns 0, or 1 if it cannot
   compute the result; then it has written nothing, and NumPy computes it. No result depends on the
   number of threads. */

static intptr_t size_of(const Array *a)
{
    intptr_t size = 1;
    for (int k = 0; k < a->axes; k++) size *= a->shape[k];
    return size;
}

/* -- blocks of arrays ---------------------------------------------------------------------------- */

enum { BLOCK = 8192 };

/* Process the elements first … last - 1 of an array; `block` counts the blocks of all arrays. */
typedef void block_function(void *argument, intptr_t array, intptr_t block, intptr_t first,
                            intptr_t last);

struct blocks {
    intptr_t arrays, total;
    const intptr_t *size;
    block_function *function;
    void *argument;
};

static void run_blocks(void *argument, intptr_t part, intptr_t parts)
{
    const struct blocks *b = argument;
    const intptr_t from = b->total * part / parts, to = b->total * (part + 1) / parts;
    for (intptr_t i = 0, done = 0; i < b->arrays && done < to; i++) {
        const intptr_t size = b->size[i], n = (size + BLOCK - 1) / BLOCK;
        for (intptr_t k = from > done ? from - done : 0; k < n && done + k < to; k++)
            b->function(b->argument, i, done + k, k * BLOCK,
                        (k + 1) * BLOCK < size ? (k + 1) * BLOCK : size);
        done += n;
    }
}

static intptr_t blocks_of(intptr_t arrays, const intptr_t *size)
{
    intptr_t total = 0;
    for (intptr_t i = 0; i < arrays; i++) total += (size[i] + BLOCK - 1) / BLOCK;
    return total;
}

/* -- clipping ------------------------------------------------------------------------------------ */

struct gradients {
    intptr_t count, real, threads;
    Array *const *array;
    double most;      /* the bound of the norm */
    intptr_t finite;  /* whether gradients whose norm is not finite stay unchanged */
    double *square;   /* out: the sum of the squares of each gradient */
    double norm;      /* out */
    double factor;    /* of the scaling */
    double *partial;  /* the sum of the squares of each block */
};

#define LANES 16

#define SQUARES(T)                                                                                     \
    static double squares_##T(const T *x, intptr_t n)                                                  \
    {                                                                                                  \
        double sum[LANES] = { 0 };                                                                     \
        intptr_t i = 0;                                                                                \
        for (; i + LANES <= n; i += LANES)                                                             \
            for (int l = 0; l < LANES; l++) sum[l] += (double)x[i + l] * (double)x[i + l];             \
        for (int l = 0; i < n; i++, l++) sum[l] += (double)x[i] * (double)x[i];                        \
        for (int w = LANES / 2; w; w /= 2)                                                             \
            for (int l = 0; l < w; l++) sum[l] += sum[l + w];                                          \
        return sum[0];                                                                                 \
    }
SQUARES(float)
SQUARES(double)

static void add_squares(void *argument, intptr_t i, intptr_t block, intptr_t first, intptr_t last)
{
    const struct gradients *g = argument;
    const char *data = g->array[i]->data + first * g->real;
    g->partial[block] = g->real == 4 ? squares_float((const float *)data, last - first)
                                     : squares_double((const double *)data, last - first);
}

static void scale_block(void *argument, intptr_t i, intptr_t block, intptr_t first, intptr_t last)
{
    const struct gradients *g = argument;
    char *data = g->array[i]->data;
    if (g->real == 4)
        for (intptr_t k = first; k < last; k++) ((float *)data)[k] *= (float)g->factor;
    else
        for (intptr_t k = first; k < last; k++) ((double *)data)[k] *= g->factor;
}

/* Scale the gradients so that their norm is at most `most`. */
int clip_gradients(struct gradients *g)
{
    intptr_t size[g->count + 1];
    for (intptr_t i = 0; i < g->count; i++) {
        const int flags = g->array[i]->flags;
        if (!(flags & CONTIGUOUS) || !(flags & IS_ALIGNED) || !(flags & WRITABLE)) return 1;
        size[i] = size_of(g->array[i]);
    }
    struct blocks blocks = { g->count, blocks_of(g->count, size), size, add_squares, g };
    g->partial = malloc((blocks.total + 1) * sizeof *g->partial);
    if (!g->partial) return 1;
    in_parts(run_blocks, &blocks, g->threads);
    double total = 0;
    const double *partial = g->partial;
    for (intptr_t i = 0; i < g->count; i++) {
        g->square[i] = 0;
        for (intptr_t k = 0; k < size[i]; k += BLOCK) g->square[i] += *partial++;
        total += g->square[i];
    }
    free(g->partial);
    g->norm = sqrt(total);
    const bool finite = g->norm - g->norm == 0;
    if (g->most - g->most != 0 || (g->finite && !finite)) return 0;
    g->factor = g->most / (g->norm <= g->most ? g->most : g->norm); /* nan for nan */
    blocks.function = scale_block;
    if (g->factor != 1) in_parts(run_blocks, &blocks, g->threads);
    return 0;
}

/* -- updates ------------------------------------------------------------------------------------- */

/* A row of arrays for each parameter: the parameter, its gradient, its state, numbers. */
struct update {
    intptr_t rows, columns, real, threads;
    Array *const *array;
    uint64_t numbers; /* bit k: column k has arrays of one number, which the parameter's steps share */
    uint64_t written; /* bit k: column k is written */
    stage_function *elements, *finish;
    const double *setting;
};

static void update_block(void *argument, intptr_t i, intptr_t block, intptr_t first, intptr_t last)
{
    const struct update *u = argument;
    char *at[u->columns];
    for (intptr_t k = 0; k < u->columns; k++) at[k] = u->array[i * u->columns + k]->data;
    u->elements(first, last, at, 0, 0, u->setting);
}

/* Whether parameters share memory: then they are updated one after the other. */
static bool share_memory(const struct update *u, const intptr_t *size)
{
    for (intptr_t i = 0; i < u->rows; i++)
        for (intptr_t j = 0; j < i; j++) {
            const char *a = u->array[i * u->columns]->data, *b = u->array[j * u->columns]->data;
            if (a < b + size[j] * u->real && b < a + size[i] * u->real) return true;
        }
    return false;
}

/* Update all parameters. `elements` computes elements, and then `finish` writes the numbers. */
int update_parameters(const struct update *u)
{
    intptr_t size[u->rows + 1];
    for (intptr_t i = 0; i < u->rows; i++) {
        Array *const *row = u->array + i * u->columns;
        int order = CONTIGUOUS;
        size[i] = size_of(row[0]);
        for (intptr_t k = 0; k < u->columns; k++) {
            const int flags = row[k]->flags;
            if (u->numbers >> k & 1) {
                if (row[k]->axes) return 1;
            } else {
                order &= flags;
                if (row[k]->axes != row[0]->axes || size_of(row[k]) != size[i]) return 1;
            }
            if (!(flags & IS_ALIGNED) || (u->written >> k & 1 && !(flags & WRITABLE))) return 1;
        }
        if (!order) return 1;
    }
    struct blocks blocks = { u->rows, blocks_of(u->rows, size), size, update_block, (void *)u };
    const bool alone = u->threads > 1 && share_memory(u, size);
    in_parts(run_blocks, &blocks, alone ? 1 : u->threads);
    for (intptr_t i = 0; u->finish && i < u->rows; i++) {
        char *at[u->columns];
        for (intptr_t k = 0; k < u->columns; k++) at[k] = u->array[i * u->columns + k]->data;
        u->finish(0, 1, at, 0, 0, u->setting);
    }
    return 0;
}

/* -- the gradient of a table --------------------------------------------------------------------- */

struct rows {
    intptr_t table_rows, columns, count, real, threads;
    const intptr_t *index; /* of the row to which each of the `count` values is added */
    const char *value;     /* (count, columns) */
    char *table;           /* (table_rows, columns) */
    const intptr_t *start, *order; /* the values of row r are order[start[r]] … order[start[r + 1] - 1] */
};

#define ADD_ROWS(T)                                                                                    \
    static void add_rows_##T(const struct rows *s, intptr_t from, intptr_t to)                         \
    {                                                                                                  \
        double sum[256];                                                                               \
        for (intptr_t r = 0; r < s->table_rows; r++)                                                   \
            for (intptr_t c = from; c < to && s->start[r] < s->start[r + 1]; c += 256) {               \
                const intptr_t n = to - c < 256 ? to - c : 256;                                        \
                T *out = (T *)s->table + r * s->columns + c;                                           \
                memset(sum, 0, n * sizeof *sum);                                                       \
                for (intptr_t k = s->start[r]; k < s->start[r + 1]; k++) {                             \
                    const T *in = (const T *)s->value + s->order[k] * s->columns + c;                  \
                    for (intptr_t j = 0; j < n; j++) sum[j] += in[j];                                  \
                }                                                                                      \
                for (intptr_t j = 0; j < n; j++) out[j] += (T)sum[j];                                  \
            }                                                                                          \
    }
ADD_ROWS(float)
ADD_ROWS(double)

static void add_rows_part(void *argument, intptr_t part, intptr_t parts)
{
    const struct rows *s = argument;
    const intptr_t units = (s->columns + LANES - 1) / LANES;
    const intptr_t from = units * part / parts * LANES, to = units * (part + 1) / parts * LANES;
    (s->real == 4 ? add_rows_float : add_rows_double)(s, from, to < s->columns ? to : s->columns);
}

/* Add each value to its row of the table, in order, in double precision. */
int add_rows(struct rows *s)
{
    intptr_t *start = calloc(s->table_rows + 1 + s->count, sizeof *start);
    if (!start) return 1;
    intptr_t *order = start + s->table_rows + 1;
    for (intptr_t i = 0; i < s->count; i++) {
        const intptr_t r = s->index[i] < 0 ? s->index[i] + s->table_rows : s->index[i];
        if (r < 0 || r >= s->table_rows) {
            free(start);
            return 1;
        }
        start[r]++;
    }
    for (intptr_t r = 0, total = 0; r <= s->table_rows; r++) {
        total += start[r];
        start[r] = total; /* the end of its values, which are filled in backwards */
    }
    for (intptr_t i = s->count; i-- > 0;)
        order[--start[s->index[i] < 0 ? s->index[i] + s->table_rows : s->index[i]]] = i;
    s->start = start;
    s->order = order;
    in_parts(add_rows_part, s, s->threads);
    free(start);
    return 0;
}

/* -- cross-entropy ------------------------------------------------------------------------------- */

struct cross_entropy {
    intptr_t rows, classes, real, threads;
    const char *logits;     /* (rows, classes) */
    const intptr_t *target; /* (rows) */
    double smoothing;
    const char *gradient; /* (rows), of the losses; or null: `out` is the losses */
    char *out;            /* the losses (rows), or the gradient of the logits (rows, classes) */
};

/* LANES rows are processed together, in tiles of COLUMNS classes, whose element (class, row) is
   tile[class][row]. So short rows take whole vectors, too. A sum is added in REAL in a tile, and the sums
   of tiles in double. Missing rows are copies of the last one. */
enum { COLUMNS = 64 };

#define CROSS_ENTROPY(T)                                                                               \
    static void take_tile_##T(T (*restrict tile)[LANES], const T *restrict x, intptr_t n,              \
                              intptr_t rows, intptr_t m)                                               \
    {                                                                                                  \
        for (intptr_t l = 0; l < LANES; l++) {                                                         \
            const T *row = x + (l < rows ? l : rows - 1) * n;                                          \
            for (intptr_t j = 0; j < m; j++) tile[j][l] = row[j];                                      \
        }                                                                                              \
    }                                                                                                  \
    static void group_##T(const struct cross_entropy *c, intptr_t r, intptr_t rows)                    \
    {                                                                                                  \
        const intptr_t n = c->classes;                                                                 \
        const T *const x = (const T *)c->logits + r * n;                                               \
        T *const out = c->gradient ? (T *)c->out + r * n : 0;                                          \
        const double s = c->smoothing;                                                                 \
        T best[LANES], tile[COLUMNS][LANES];                                                           \
        double sum[LANES] = { 0 }, shifts[LANES] = { 0 };                                              \
        for (int l = 0; l < LANES; l++) best[l] = -INFINITY;                                           \
        for (intptr_t k = 0; k < n; k += COLUMNS) {                                                    \
            const intptr_t m = n - k < COLUMNS ? n - k : COLUMNS;                                      \
            take_tile_##T(tile, x + k, n, rows, m);                                                    \
            for (intptr_t j = 0; j < m; j++)                                                           \
                for (int l = 0; l < LANES; l++)                                                        \
                    best[l] = tile[j][l] > best[l] ? tile[j][l] : best[l];                             \
        }                                                                                              \
        for (intptr_t k = 0; k < n; k += COLUMNS) {                                                    \
            const intptr_t m = n - k < COLUMNS ? n - k : COLUMNS;                                      \
            T part[LANES] = { 0 }, shift[LANES] = { 0 };                                               \
            if (n > COLUMNS) take_tile_##T(tile, x + k, n, rows, m);                                   \
            for (intptr_t j = 0; j < m && s != 0; j++)                                                 \
                for (int l = 0; l < LANES; l++) shift[l] += tile[j][l] - best[l];                      \
            for (intptr_t j = 0; j < m; j++)                                                           \
                for (int l = 0; l < LANES; l++) {                                                      \
                    tile[j][l] = exp_##T(tile[j][l] - best[l]);                                        \
                    part[l] += tile[j][l];                                                             \
                }                                                                                      \
            for (int l = 0; l < LANES; l++) sum[l] += part[l], shifts[l] += shift[l];                  \
            for (intptr_t l = 0; l < rows && out; l++)                                                 \
                for (intptr_t j = 0; j < m; j++) out[l * n + k + j] = tile[j][l];                      \
        }                                                                                              \
        for (intptr_t l = 0; l < rows; l++) {                                                          \
            const intptr_t t = c->target[r + l];                                                       \
            if (!out) {                                                                                \
                const double loss = log_double(sum[l]) - (1 - s) * (x[l * n + t] - best[l]);           \
                ((T *)c->out)[r + l] = (T)(s != 0 ? loss - s * (shifts[l] / n) : loss);                \
                continue;                                                                              \
            }                                                                                          \
            T *const row = out + l * n;                                                                \
            const T g = ((const T *)c->gradient)[r + l], all = (T)sum[l], every = (T)(s / n);          \
            const T own = (row[t] / all - (T)(1 - s + s / n)) * g;                                     \
            for (intptr_t j = 0; j < n; j++) row[j] = (row[j] / all - every) * g;                      \
            row[t] = own;                                                                              \
        }                                                                                              \
    }
CROSS_ENTROPY(float)
CROSS_ENTROPY(double)

static void cross_entropy_part(void *argument, intptr_t part, intptr_t parts)
{
    const struct cross_entropy *c = argument;
    const intptr_t groups = (c->rows + LANES - 1) / LANES;
    for (intptr_t i = groups * part / parts; i < groups * (part + 1) / parts; i++) {
        const intptr_t r = i * LANES, rows = c->rows - r < LANES ? c->rows - r : LANES;
        (c->real == 4 ? group_float : group_double)(c, r, rows);
    }
}

/* The losses of the rows, or the gradient of the logits. */
int cross_entropy(const struct cross_entropy *c)
{
    for (intptr_t r = 0; r < c->rows; r++)
        if (c->target[r] < 0 || c->target[r] >= c->classes) return 1;
    in_parts(cross_entropy_part, (void *)c, c->threads);
    return 0;
}
