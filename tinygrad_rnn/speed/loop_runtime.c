/* The runtime of compiled loops over time: threads, matrix products, and the loop itself.

   A *program* is a list of operations for one time step (`struct operation`) on buffers. `run_program`
   packs the weights and runs all time steps. Threads have different rows of the batch, so they wait for
   each other only at the end. The elementwise operations between products are compiled for each step
   function; a program refers to them by address. ARRAY is the structure of a NumPy array. */

#include <pthread.h>
#include <sched.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#if defined(__x86_64__)
#include <immintrin.h>
#endif

ARRAY
#define UNROLL _Pragma("GCC unroll 24")
#define PASTE_(a, b) a##_##b
#define PASTE(a, b) PASTE_(a, b)
#define NAME(name) PASTE(name, REAL)

#if defined(__AVX512F__)
enum { VECTOR_BYTES = 64, PANEL_VECTORS = 4 };
#elif defined(__AVX__)
enum { VECTOR_BYTES = 32, PANEL_VECTORS = 2 };
#elif defined(__aarch64__)
enum { VECTOR_BYTES = 16, PANEL_VECTORS = 4 };
#else
enum { VECTOR_BYTES = 16, PANEL_VECTORS = 2 };
#endif
enum { TILE_ROWS = 6, DEPTH_BLOCK = 256, FEW_PANELS = 2, ALIGNMENT = 64, WORTH_PACKING = 4 };

#define REAL float
PRODUCTS
#undef REAL
#define REAL double
PRODUCTS
#undef REAL

/* -- denormal numbers ---------------------------------------------------------------------------- */

/* Vanishing gradients become denormal, and products of these are slow. They count as zero in products;
   the mode is restored after each. */
#if defined(__x86_64__)
typedef unsigned float_mode;
static inline float_mode flush_denormals(void)
{
    const float_mode before = _mm_getcsr();
    _mm_setcsr(before | 0x8040);
    return before;
}
static inline void restore_mode(float_mode mode) { _mm_setcsr(mode); }
#elif defined(__aarch64__)
typedef uint64_t float_mode;
static inline float_mode flush_denormals(void)
{
    float_mode before;
    __asm__ volatile("mrs %0, fpcr" : "=r"(before));
    __asm__ volatile("msr fpcr, %0" ::"r"(before | (1 << 24)));
    return before;
}
static inline void restore_mode(float_mode mode) { __asm__ volatile("msr fpcr, %0" ::"r"(mode)); }
#else
typedef int float_mode;
static inline float_mode flush_denormals(void) { return 0; }
static inline void restore_mode(float_mode mode) { (void)mode; }
#endif

/* -- threads ------------------------------------------------------------------------------------- */

/* One pool for the process. The parts of a job are taken by the workers and by the caller, so a caller
   never waits for a worker that has not begun. A second caller at the same time runs its parts alone.
   Workers wait SPINS rounds for the next job before they sleep. After a fork the child has no workers. */

enum { MOST_THREADS = 256, SPINS = 20000, WORTH_THREADS = 1 << 18 };

typedef void part_function(void *argument, intptr_t part, intptr_t parts);

static struct {
    pthread_mutex_t busy, lock;
    pthread_cond_t wake;
    intptr_t workers; /* that have been started */
    uint64_t job;     /* the number of the current job */
    part_function *function;
    void *argument;
    intptr_t parts, next; /* of the current job; `next` has not begun */
    intptr_t left;        /* parts that are not done */
} pool = { .busy = PTHREAD_MUTEX_INITIALIZER, .lock = PTHREAD_MUTEX_INITIALIZER,
           .wake = PTHREAD_COND_INITIALIZER };

static inline void pause_briefly(void)
{
#if defined(__x86_64__)
    _mm_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

/* Run parts of a job until none is left. The lock is held before and after. */
static void take_parts(uint64_t job)
{
    while (pool.job == job && pool.next < pool.parts) {
        const intptr_t part = pool.next++, parts = pool.parts;
        part_function *const function = pool.function;
        void *const argument = pool.argument;
        pthread_mutex_unlock(&pool.lock);
        function(argument, part, parts);
        __atomic_sub_fetch(&pool.left, 1, __ATOMIC_RELEASE);
        pthread_mutex_lock(&pool.lock);
    }
}

static void *work(void *unused)
{
    uint64_t done = 0;
    for (;;) {
        for (int i = 0; i < SPINS && __atomic_load_n(&pool.job, __ATOMIC_RELAXED) == done; i++)
            pause_briefly();
        pthread_mutex_lock(&pool.lock);
        while (pool.job == done) pthread_cond_wait(&pool.wake, &pool.lock);
        done = pool.job;
        take_parts(done);
        pthread_mutex_unlock(&pool.lock);
    }
    return unused;
}

static void forget_workers(void)
{
    pthread_mutex_init(&pool.busy, 0);
    pthread_mutex_init(&pool.lock, 0);
    pthread_cond_init(&pool.wake, 0);
    pool.workers = 0;
    pool.job = 0;
}

static void start_workers(intptr_t count)
{
    if (pool.workers == 0) {
        static bool registered;
        if (!registered) pthread_atfork(0, 0, forget_workers);
        registered = true;
    }
    pthread_attr_t detached;
    pthread_attr_init(&detached);
    pthread_attr_setdetachstate(&detached, PTHREAD_CREATE_DETACHED);
    while (pool.workers < count && pool.workers + 1 < MOST_THREADS) {
        pthread_t thread;
        if (pthread_create(&thread, &detached, work, 0)) break;
        pool.workers++;
    }
    pthread_attr_destroy(&detached);
}

/* Call function(argument, part, parts) for each part; return when all are done. */
static void in_parts(part_function *function, void *argument, intptr_t parts)
{
    if (parts <= 1 || pthread_mutex_trylock(&pool.busy)) {
        for (intptr_t part = 0; part < parts; part++) function(argument, part, parts);
        return;
    }
    start_workers(parts - 1);
    pthread_mutex_lock(&pool.lock);
    pool.function = function;
    pool.argument = argument;
    pool.parts = pool.left = parts;
    pool.next = 0;
    __atomic_add_fetch(&pool.job, 1, __ATOMIC_RELAXED);
    pthread_cond_broadcast(&pool.wake);
    take_parts(pool.job);
    pthread_mutex_unlock(&pool.lock);
    for (int i = 0; __atomic_load_n(&pool.left, __ATOMIC_ACQUIRE); i++)
        if (i < SPINS) pause_briefly();
        else sched_yield();
    pthread_mutex_unlock(&pool.busy);
}

/* -- memory -------------------------------------------------------------------------------------- */

/* Each thread keeps its room for packed operands: fresh memory would cost a page fault every 4 KiB. */

enum { MOST_KEPT = 1 << 26 };

struct room {
    char *memory;
    size_t size;
};

static pthread_key_t room_key;
static pthread_once_t room_once = PTHREAD_ONCE_INIT;

static void free_room(void *pointer)
{
    struct room *room = pointer;
    free(room->memory);
    free(room);
}

static void make_room_key(void) { pthread_key_create(&room_key, free_room); }

/* Before the key is made, its number is that of another library's. */
static struct room *room_of_thread(void)
{
    pthread_once(&room_once, make_room_key);
    return pthread_getspecific(room_key);
}

/* Return the room of this thread; null if there is no memory. */
static char *take_room(size_t size)
{
    struct room *room = room_of_thread();
    if (!room) {
        room = calloc(1, sizeof *room);
        if (!room) return 0;
        pthread_setspecific(room_key, room);
    }
    if (room->size < size) {
        free(room->memory);
        room->size = (size + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
        room->memory = aligned_alloc(ALIGNMENT, room->size);
        if (!room->memory) room->size = 0;
    }
    return room->memory;
}

/* Free the room of this thread if it is very large. */
static void leave_room(void)
{
    struct room *room = room_of_thread();
    if (!room || room->size <= MOST_KEPT) return;
    free(room->memory);
    room->memory = 0;
    room->size = 0;
}

/* -- one product --------------------------------------------------------------------------------- */

struct operands { /* strides in elements */
    intptr_t rows, columns, depth, real, threads;
    const char *a;
    intptr_t a_row, a_column;
    const char *b;
    intptr_t b_row, b_column;
    char *c;
    intptr_t c_row, c_column; /* one of them is 1 */
    const char *bias;         /* (columns), or null */
    bool failed;
};

/* Each part has some of the columns, or some of the rows. */
static void multiply_part(void *argument, intptr_t part, intptr_t parts)
{
    struct operands *o = argument;
    const bool by_columns = o->columns >= o->rows;
    const intptr_t panel = o->real == 4 ? PANEL_float : PANEL_double;
    const intptr_t units = by_columns ? (o->columns + panel - 1) / panel : o->rows;
    const intptr_t first = units * part / parts * (by_columns ? panel : 1);
    const intptr_t stop = units * (part + 1) / parts * (by_columns ? panel : 1);
    const intptr_t end = by_columns && stop > o->columns ? o->columns : stop;
    const intptr_t rows = by_columns ? o->rows : end - first;
    const intptr_t columns = by_columns ? end - first : o->columns;
    const intptr_t i = by_columns ? 0 : first, j = by_columns ? first : 0;
    if (rows <= 0 || columns <= 0) return;
    if (o->rows == 1) {
        const char *const from = o->b + j * o->b_column * o->real;
        const char *const bias = o->bias ? o->bias + j * o->real : 0;
        const float_mode mode = flush_denormals();
        if (o->real == 4)
            multiply_vector_float(columns, o->depth, (const float *)o->a, (const float *)from, o->b_row,
                                  o->b_column, (const float *)bias, (float *)o->c + j);
        else
            multiply_vector_double(columns, o->depth, (const double *)o->a, (const double *)from,
                                   o->b_row, o->b_column, (const double *)bias, (double *)o->c + j);
        restore_mode(mode);
        return;
    }
    const intptr_t depth = o->depth < DEPTH_BLOCK ? o->depth : DEPTH_BLOCK;
    const intptr_t left = (rows * depth * o->real + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
    const intptr_t right = (columns + panel) * depth * o->real;
    const bool transposed = o->c_column != 1;
    const intptr_t width = (columns + panel - 1) / panel * panel; /* of a row of the transposed result */
    char *room = take_room(left + right + (transposed ? rows * width * o->real : 0));
    if (!room) {
        __atomic_store_n(&o->failed, true, __ATOMIC_RELAXED);
        return;
    }
    const char *const a = o->a + i * o->a_row * o->real, *const b = o->b + j * o->b_column * o->real;
    char *const c = o->c + (i * o->c_row + j * o->c_column) * o->real;
    const char *const bias = o->bias ? o->bias + j * o->real : 0;
    char *const to = transposed ? room + left + right : c;
    const intptr_t to_row = transposed ? width : o->c_row;
    const float_mode mode = flush_denormals();
    if (o->real == 4) {
        multiply_float(rows, columns, o->depth, (const float *)a, o->a_row, o->a_column,
                       (const float *)b, o->b_row, o->b_column, (const float *)bias, (float *)to,
                       to_row, (float *)room, (float *)(room + left));
        if (transposed) transpose_float(rows, columns, (float *)to, to_row, (float *)c, o->c_column);
    } else {
        multiply_double(rows, columns, o->depth, (const double *)a, o->a_row, o->a_column,
                        (const double *)b, o->b_row, o->b_column, (const double *)bias, (double *)to,
                        to_row, (double *)room, (double *)(room + left));
        if (transposed) transpose_double(rows, columns, (double *)to, to_row, (double *)c, o->c_column);
    }
    restore_mode(mode);
    leave_room();
}

/* c = a @ b + bias. Returns 0, or 1 if there is no memory. */
int matrix_product(struct operands *o)
{
    struct operands call = *o;
    /* cᵀ = bᵀ aᵀ if a is a large transposed matrix and b a small one: rows are packed faster than
       columns, and the few columns of c become the rows of tiles, so none of a vector is empty. */
    if (o->rows > 4 * o->columns && o->columns >= TILE_ROWS && o->a_row == 1 && o->a_column != 1
        && o->b_column == 1 && !o->bias) {
        call.rows = o->columns, call.columns = o->rows;
        call.a = o->b, call.a_row = o->b_column, call.a_column = o->b_row;
        call.b = o->a, call.b_row = o->a_column, call.b_column = o->a_row;
        call.c_row = o->c_column, call.c_column = o->c_row;
    }
    call.failed = false;
    in_parts(multiply_part, &call, call.threads);
    return call.failed;
}

/* out = x @ y + bias for matrices of NumPy with numbers of `real` bytes; rows of out are contiguous, and
   so is `bias`, which may be null. Returns 0, 1 if there is no memory, or 2 if the memory order of x or y
   is not supported. */
int array_product(const Array *x, const Array *y, const Array *out, const Array *bias, intptr_t real,
                  intptr_t threads)
{
    struct operands o = {
        .rows = x->shape[0], .columns = y->shape[1], .depth = x->shape[1], .real = real,
        .threads = threads, .a = x->data, .a_row = x->strides[0] / real,
        .a_column = x->shape[1] == 1 ? 1 : x->strides[1] / real, .b = y->data,
        .b_row = y->strides[0] / real, .b_column = y->strides[1] / real, .c = out->data,
        .c_row = y->shape[1], .c_column = 1, .bias = bias ? bias->data : 0,
    };
    if ((x->strides[0] | x->strides[1] | y->strides[0] | y->strides[1]) % real) return 2;
    if (!(x->flags & y->flags & IS_ALIGNED)) return 2;
    if (o.rows == 1 && (o.a_column != 1 || (o.b_row != 1 && o.b_column != 1))) return 2;
    return matrix_product(&o);
}

/* -- programs ------------------------------------------------------------------------------------ */

typedef void stage_function(intptr_t first, intptr_t last, char *const *at, const intptr_t *row,
                            const intptr_t *size, const double *number);

/* An array that has a matrix (rows, ...) for each time step. */
struct buffer {
    char *first;      /* its rows at the first step */
    intptr_t step[2]; /* bytes to the next step, after even and after odd steps */
    intptr_t row;     /* bytes to the next row; 0 if all rows are the same */
};

struct weight { /* the right operand of products, strides in elements */
    const char *data;
    intptr_t row, column, depth, columns, real;
};

enum kind { STAGE, PRODUCT, ZERO, SCALE, ENDED };

struct operation {
    intptr_t kind;
    intptr_t out, in; /* numbers of buffers */
    intptr_t real;    /* bytes of a number: 4 or 8 */
    intptr_t count;   /* numbers of a row */
    intptr_t which;   /* STAGE: the address of the function; PRODUCT: the number of the weight */
    intptr_t offset;  /* PRODUCT: bytes from the start of a row of the left operand */
};

struct program {
    intptr_t steps, rows;
    intptr_t threads;      /* that have rows of the batch */
    intptr_t most_threads; /* of a product of a single row */
    intptr_t buffers;
    const struct buffer *buffer;
    intptr_t operations;
    const struct operation *operation;
    intptr_t weights;
    const struct weight *weight;
    const intptr_t *size;      /* of the stages */
    const double *number;      /* of the stages */
    const double *edge;        /* the weight of the gradient's edge, for each step; or null */
    const uint8_t *alive;      /* (steps, rows): whether a sequence has this step; or null */
    const uint8_t *edge_alive; /* (steps, rows): whether a sequence has this edge; or null */
};

struct call {
    const struct program *program;
    char **packed; /* of each weight */
};

static intptr_t panels_of(const struct weight *w)
{
    const intptr_t panel = w->real == 4 ? PANEL_float : PANEL_double;
    return (w->columns + panel - 1) / panel;
}

/* Whether products read a weight as it is: packing pays after some rows only. */
static bool is_unpacked(const struct program *p, const struct weight *w)
{
    return p->steps * p->rows < WORTH_PACKING && (w->row == 1 || w->column == 1);
}

static void pack_weights(void *argument, intptr_t part, intptr_t parts)
{
    const struct call *call = argument;
    for (intptr_t i = 0; i < call->program->weights; i++) {
        const struct weight *w = call->program->weight + i;
        if (is_unpacked(call->program, w)) continue;
        const intptr_t panels = panels_of(w);
        const intptr_t first = panels * part / parts, last = panels * (part + 1) / parts;
        if (w->real == 4)
            pack_float((float *)call->packed[i], (const float *)w->data, w->row, w->column, w->depth,
                       w->columns, first, last);
        else
            pack_double((double *)call->packed[i], (const double *)w->data, w->row, w->column,
                        w->depth, w->columns, first, last);
    }
}

static void scale(char *at, intptr_t real, intptr_t count, double by)
{
    if (by == 0) memset(at, 0, count * real);
    else if (real == 4) for (intptr_t i = 0; i < count; i++) ((float *)at)[i] *= (float)by;
    else for (intptr_t i = 0; i < count; i++) ((double *)at)[i] *= by;
}

/* Run one operation for the rows first … last - 1, which include all that have this step. */
static void run_operation(const struct call *call, const struct operation *op, intptr_t step,
                          intptr_t first, intptr_t last, char *const *at, const intptr_t *row)
{
    const struct program *p = call->program;
    const uint8_t *alive = p->alive ? p->alive + step * p->rows : 0;
    switch (op->kind) {
    case STAGE:
        for (intptr_t r = first; r < last;) {
            intptr_t stop = alive ? r : last;
            while (stop < last && alive[stop]) stop++;
            if (r < stop) ((stage_function *)op->which)(r, stop, at, row, p->size, p->number);
            r = stop < last ? stop + 1 : stop;
        }
        break;
    case PRODUCT: {
        while (alive && first < last && !alive[first]) first++;
        while (alive && first < last && !alive[last - 1]) last--;
        if (first == last) break;
        const struct weight *w = p->weight + op->which;
        char *out = at[op->out] + first * row[op->out];
        const char *in = at[op->in] + first * row[op->in] + op->offset;
        if (is_unpacked(p, w)) {
            for (intptr_t r = first; r < last; r++) {
                struct operands o = {
                    .rows = 1, .columns = w->columns, .depth = w->depth, .real = op->real,
                    .threads = w->depth * w->columns < WORTH_THREADS ? 1 : p->most_threads,
                    .a = in, .b = w->data, .b_row = w->row, .b_column = w->column, .c = out,
                    .c_column = 1,
                };
                in_parts(multiply_part, &o, o.threads);
                in += row[op->in];
                out += row[op->out];
            }
            break;
        }
        const float_mode mode = flush_denormals();
        if (op->real == 4)
            product_float(last - first, w->depth, w->columns, (const float *)in, row[op->in] / 4, 1,
                          (const float *)call->packed[op->which], (float *)out, row[op->out] / 4);
        else
            product_double(last - first, w->depth, w->columns, (const double *)in, row[op->in] / 8, 1,
                           (const double *)call->packed[op->which], (double *)out, row[op->out] / 8);
        restore_mode(mode);
        break;
    }
    case ZERO:
        for (intptr_t r = first; r < last; r++)
            memset(at[op->out] + r * row[op->out], 0, op->count * op->real);
        break;
    case SCALE: {
        const uint8_t *has = p->edge_alive ? p->edge_alive + step * p->rows : 0;
        if (!p->edge || p->edge[step] == 1) break;
        for (intptr_t r = first; r < last; r++)
            if (!has || has[r])
                scale(at[op->out] + r * row[op->out], op->real, op->count, p->edge[step]);
        break;
    }
    case ENDED:
        for (intptr_t r = first; alive && r < last; r++) {
            char *out = at[op->out] + r * row[op->out];
            if (alive[r]) continue;
            if (op->in < 0) memset(out, 0, op->count * op->real);
            else memcpy(out, at[op->in] + r * row[op->in], op->count * op->real);
        }
        break;
    }
}

static void run_rows(void *argument, intptr_t part, intptr_t parts)
{
    const struct call *call = argument;
    const struct program *p = call->program;
    const intptr_t first = p->rows * part / parts, last = p->rows * (part + 1) / parts;
    char *at[p->buffers + 1];
    intptr_t row[p->buffers + 1];
    for (intptr_t b = 0; b < p->buffers; b++) {
        at[b] = p->buffer[b].first;
        row[b] = p->buffer[b].row;
    }
    for (intptr_t step = 0; step < p->steps; step++) {
        for (intptr_t i = 0; i < p->operations; i++)
            run_operation(call, p->operation + i, step, first, last, at, row);
        for (intptr_t b = 0; b < p->buffers; b++) at[b] += p->buffer[b].step[step & 1];
    }
}

/* Run a program. Returns 0, or 1 if there is no memory for the packed weights. */
int run_program(const struct program *p)
{
    char *packed[p->weights + 1];
    intptr_t total = 0;
    for (intptr_t i = 0; i < p->weights; i++) {
        const struct weight *w = p->weight + i;
        const intptr_t size = w->real == 4 ? packed_size_float(w->depth, w->columns)
                                           : packed_size_double(w->depth, w->columns);
        packed[i] = (char *)total;
        if (is_unpacked(p, w)) continue;
        total += (size * w->real + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
    }
    char *memory = total ? take_room(total) : 0;
    if (total && !memory) return 1;
    for (intptr_t i = 0; i < p->weights; i++) packed[i] = memory + (intptr_t)packed[i];
    struct call call = { p, packed };
    if (total) in_parts(pack_weights, &call, p->threads);
    in_parts(run_rows, &call, p->threads);
    leave_room();
    return 0;
}
