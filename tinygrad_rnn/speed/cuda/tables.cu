/* Many arrays in one launch: a table with a row for each parameter, and a column for each of its
   arrays. It is an argument by value, so nothing is uploaded. A block processes a chunk of a row.

   ROWS and COLUMNS are defined before; THREADS is the number of threads of a block. */

#ifndef __CUDACC__
#define __grid_constant__
#endif

struct Table {
    int64_t rows;
    int64_t chunk;     /* elements */
    int64_t end[ROWS]; /* the number of blocks of this row and of those before */
    int64_t size[ROWS];
    char *at[ROWS][COLUMNS];
};

struct Chunk { int row; int64_t first, last; };

static __device__ Chunk chunk_of(const Table &t, int64_t block)
{
    int row = 0;
    while (block >= t.end[row]) row++;
    const int64_t first = (block - (row ? t.end[row - 1] : 0)) * t.chunk;
    const int64_t last = first + t.chunk;
    return {row, first, last < t.size[row] ? last : t.size[row]};
}
