/* The parts of a training step outside of the loop over time, as in ../training_step.c: the norm and
   the scaling of all gradients, the gradient of a table of rows, and the cross-entropy.

   The text follows tables.cu; REAL is defined before. All sums are in double precision and in one
   order, so a result has the same bits in each run. */

/* Return the sum of a number of each of `lanes` threads, a power of 2, to all of them. */
static __device__ double sum_of(double *part, double x, int lanes)
{
    const int lane = threadIdx.x % lanes;
    part[threadIdx.x] = x;
    for (int half = lanes / 2; half; half /= 2) {
        __syncthreads();
        if (lane < half) part[threadIdx.x] += part[threadIdx.x + half];
    }
    __syncthreads();
    x = part[threadIdx.x - lane];
    __syncthreads();
    return x;
}

static __device__ double greatest_of(double *part, double x, int lanes)
{
    const int lane = threadIdx.x % lanes;
    part[threadIdx.x] = x;
    for (int half = lanes / 2; half; half /= 2) {
        __syncthreads();
        const double other = part[threadIdx.x + (lane < half ? half : 0)];
        if (other > part[threadIdx.x]) part[threadIdx.x] = other;
    }
    __syncthreads();
    x = part[threadIdx.x - lane];
    __syncthreads();
    return x;
}

/* -- clipping ------------------------------------------------------------------------------------ */

/* Write the sum of the squares of each chunk. */
extern "C" __global__ void squares(const __grid_constant__ Table t, double *partial)
{
    __shared__ double part[THREADS];
    const Chunk c = chunk_of(t, blockIdx.x);
    const REAL *x = (const REAL *)t.at[c.row][0];
    double sum = 0;
    for (int64_t i = c.first + threadIdx.x; i < c.last; i += THREADS)
        sum += (double)x[i] * (double)x[i];
    sum = sum_of(part, sum, THREADS);
    if (threadIdx.x == 0) partial[blockIdx.x] = sum;
}

/* Scale all gradients so that their norm is at most `most`; every block computes the norm.
   With `finite`, gradients whose norm is not finite stay unchanged. */
extern "C" __global__ void scale(const __grid_constant__ Table t, const double *partial, int64_t partials,
                                 double most, bool finite, double *norm, REAL *rounded)
{
    __shared__ double part[THREADS];
    double sum = 0;
    for (int64_t i = threadIdx.x; i < partials; i += THREADS) sum += partial[i];
    const double found = sqrt(sum_of(part, sum, THREADS));
    if (blockIdx.x == 0 && threadIdx.x == 0) {
        *norm = found;
        *rounded = (REAL)found;
    }
    const REAL factor = (REAL)(most / (found <= most ? most : found)); /* nan for nan */
    if (most - most != 0 || (finite && found - found != 0) || factor == 1) return;
    const Chunk c = chunk_of(t, blockIdx.x);
    REAL *x = (REAL *)t.at[c.row][0];
    for (int64_t i = c.first + threadIdx.x; i < c.last; i += THREADS) x[i] *= factor;
}

/* -- the gradient of a table --------------------------------------------------------------------- */

/* Return the row of an index. One outside of the table is wrapped around, as in a read of CuPy. */
static __device__ int64_t row_of(int64_t index, int64_t rows)
{
    if (index >= 0 && index < rows) return index;
    index %= rows;
    return index < 0 ? index + rows : index;
}

/* Add each value to its row of the table. A block adds all values of one row, in order: the block of
   the first of them. It tells from the `from` values before its own; if the indices are sorted, the
   one before is enough, and the values of a row follow each other. */
extern "C" __global__ void add_rows(const int64_t *index, const int64_t *order, const REAL *values,
                                    REAL *table, int64_t count, int64_t rows, int64_t columns)
{
    __shared__ int64_t rows_of[THREADS];
    __shared__ int earlier, ended;
    const int64_t n = blockIdx.x, column = (int64_t)blockIdx.y * THREADS + threadIdx.x;
    const int64_t own = row_of(index[n], rows);
    if (threadIdx.x == 0) earlier = ended = 0;
    __syncthreads();
    for (int64_t m = (order && n ? n - 1 : 0) + threadIdx.x; m < n; m += THREADS)
        if (row_of(index[m], rows) == own) earlier = 1;
    __syncthreads();
    if (earlier) return;
    double sum = 0;
    for (int64_t first = n; first < count && !ended; first += THREADS) {
        const int64_t m = first + threadIdx.x;
        rows_of[threadIdx.x] = m < count ? row_of(index[m], rows) : -1;
        __syncthreads();
        for (int k = 0; k < THREADS && column < columns; k++)
            if (rows_of[k] == own) {
                const int64_t at = order ? order[first + k] : first + k;
                sum += (double)values[at * columns + column];
            }
        if (threadIdx.x == 0) ended = order && rows_of[THREADS - 1] != own;
        __syncthreads();
    }
    if (column < columns) table[own * columns + column] += (REAL)sum;
}

/* -- cross-entropy ------------------------------------------------------------------------------- */

/* The losses of the rows of logits; with their `gradient`, that of the logits. `lanes` threads compute
   a row. A target that is no class gives nan. */
extern "C" __global__ void cross_entropy(const REAL *logits, const int64_t *target, int64_t rows,
                                         int64_t classes, int lanes, double smoothing,
                                         const REAL *gradient, int64_t step, REAL *out)
{
    __shared__ double part[THREADS];
    const int lane = threadIdx.x % lanes;
    const int64_t row = (int64_t)blockIdx.x * (THREADS / lanes) + threadIdx.x / lanes;
    const int64_t r = row < rows ? row : rows - 1; /* all threads take part in the sums */
    const REAL *x = logits + r * classes;
    double found = x[lane < classes ? lane : 0];
    for (int64_t j = lane; j < classes; j += lanes)
        if (x[j] > found) found = x[j]; /* a nan makes the sum nan */
    const REAL best = (REAL)greatest_of(part, found, lanes);
    double sum = 0, shift = 0;
    for (int64_t j = lane; j < classes; j += lanes) {
        const REAL d = x[j] - best;
        sum += (double)exp(d);
        shift += (double)d;
    }
    sum = sum_of(part, sum, lanes);
    if (smoothing != 0) shift = sum_of(part, shift, lanes);
    if (row >= rows) return;
    const int64_t t = target[r];
    const bool known = t >= 0 && t < classes;
    const REAL nan = (REAL)__int_as_float(0x7fc00000);
    if (!gradient) {
        if (lane) return;
        const double loss = log(sum) - (1 - smoothing) * (double)((known ? x[t] : nan) - best);
        out[r] = (REAL)(smoothing != 0 ? loss - smoothing * (shift / classes) : loss);
        return;
    }
    const REAL g = known ? gradient[r * step] : nan, all = (REAL)sum;
    const REAL every = (REAL)(smoothing / classes), own = (REAL)(1 - smoothing + smoothing / classes);
    for (int64_t j = lane; j < classes; j += lanes)
        out[r * classes + j] = (exp(x[j] - best) / all - (j == t ? own : every)) * g;
}
