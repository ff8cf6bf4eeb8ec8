/* The update of all parameters. ../gpu_updates.py replaces the words in capitals by the rule of an
   optimizer: `at` has the arrays of a parameter, `number` the settings.

   The text follows tables.cu; SETTINGS, the number of settings, is defined before. */

#define restrict __restrict__

struct Settings { double value[SETTINGS]; };

extern "C" __global__ void update(const __grid_constant__ Table t, const __grid_constant__ Settings s)
{
    const Chunk c = chunk_of(t, blockIdx.x);
    char *const *at = t.at[c.row];
    const double *number = s.value;
    HEAD
    for (int64_t i = c.first + threadIdx.x; i < c.last; i += THREADS) {
        ELEMENTS
    }
}

/* Write the numbers that a parameter has one of, such as a count of steps: after all elements. */
extern "C" __global__ void finish(const __grid_constant__ Table t, const __grid_constant__ Settings s)
{
    if (threadIdx.x >= t.rows) return;
    char *const *at = t.at[threadIdx.x];
    const double *number = s.value;
    const int i = 0;
    HEAD
    NUMBERS
}
