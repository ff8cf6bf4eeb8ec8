/* Copies between arrays of bytes: `at` has the destination and the source of each row. */

extern "C" __global__ void copies(const __grid_constant__ Table t)
{
    const Chunk c = chunk_of(t, blockIdx.x);
    char *const to = t.at[c.row][0];
    const char *const from = t.at[c.row][1];
    const bool words = ((uint64_t)to | (uint64_t)from | c.first | c.last) % 16 == 0;
    if (words) {
        struct Word { uint64_t a, b; };
        for (int64_t i = c.first / 16 + threadIdx.x; i < c.last / 16; i += THREADS)
            ((Word *)to)[i] = ((const Word *)from)[i];
    } else {
        for (int64_t i = c.first + threadIdx.x; i < c.last; i += THREADS) to[i] = from[i];
    }
}
