/* Matrix products of one type: packed right operands, and tiles that stay in registers.

   The text is compiled once for each type REAL. Names end in the type: NAME(tile) is tile_float.

   A right operand (depth, columns) is packed into panels of PANEL columns, each (depth, PANEL) and
   contiguous. The last panel has as many vectors as its columns need; missing columns are zero. A tile
   is a block of rows times one or more panels. Its sums over DEPTH_BLOCK terms are added one after the
   other, and then these sums. So an element of a product depends neither on the other rows and columns
   nor on the number of threads. */

typedef REAL NAME(vector) __attribute__((vector_size(VECTOR_BYTES), aligned(sizeof(REAL)), may_alias));

enum {
    NAME(LANES) = VECTOR_BYTES / sizeof(REAL),
    NAME(PANEL) = PANEL_VECTORS * NAME(LANES),
};

/* The elements that the packed form of a (depth, columns) matrix takes. */
static intptr_t NAME(packed_size)(intptr_t depth, intptr_t columns)
{
    return depth * ((columns + NAME(LANES) - 1) / NAME(LANES) * NAME(LANES));
}

/* Pack the panels first … last - 1 of a matrix with these strides, in elements. */
static void NAME(pack)(REAL *to, const REAL *from, intptr_t row, intptr_t column, intptr_t depth,
                       intptr_t columns, intptr_t first, intptr_t last)
{
    enum { TOGETHER = 8 }; /* panels: rows are read in long pieces, which the processor prefetches */
    const intptr_t panel = NAME(PANEL), lanes = NAME(LANES), full = columns / panel;
    intptr_t j = first;
    for (intptr_t stop; column == 1 && j < last && j < full; j = stop) {
        stop = j + TOGETHER < last ? j + TOGETHER : last;
        stop = stop < full ? stop : full;
        for (intptr_t k = 0; k < depth; k++)
            for (intptr_t q = j; q < stop; q++)
                memcpy(to + q * panel * depth + k * panel, from + k * row + q * panel,
                       NAME(PANEL) * sizeof(REAL));
    }
    for (; j < last; j++) {
        const intptr_t start = j * panel, left = columns - start;
        const intptr_t used = left < panel ? left : panel;
        const intptr_t width = (used + lanes - 1) / lanes * lanes;
        REAL *restrict out = to + start * depth;
        const REAL *restrict in = from + start * column;
        /* read along the rows of the transpose, in squares that stay in the cache */
        const intptr_t square = column == 1 ? 1 : 16;
        for (intptr_t k0 = 0; k0 < depth; k0 += square) {
            const intptr_t k1 = k0 + square < depth ? k0 + square : depth;
            for (intptr_t c = 0; c < used; c++)
                for (intptr_t k = k0; k < k1; k++) out[k * width + c] = in[k * row + c * column];
        }
        for (intptr_t k = 0; k < depth && used < width; k++)
            for (intptr_t c = used; c < width; c++) out[k * width + c] = 0;
    }
}

/* c (rows, panels of `vectors` vectors) = a @ b, or += if `add`. The left operand's element (i, k) is
   a[i a_row + k a_depth]. The first three arguments are constants wherever this is inlined. */
static inline __attribute__((always_inline)) void
NAME(tile)(const int rows, const int panels, const int vectors, intptr_t depth, const REAL *a,
           intptr_t a_row, intptr_t a_depth, const REAL *b, intptr_t b_panel, REAL *c, intptr_t c_row,
           bool add)
{
    NAME(vector) sum[24];
    const int wide = panels * vectors, lanes = NAME(LANES);
    UNROLL for (int i = 0; i < rows; i++)
        UNROLL for (int j = 0; j < wide; j++) {
            NAME(vector) zero = {0};
            sum[i * wide + j] = zero;
        }
    for (intptr_t k = 0; k < depth; k++) {
        NAME(vector) right[6];
        if (rows == 1) {
            const REAL left = a[k * a_depth];
            UNROLL for (int q = 0; q < panels; q++)
                UNROLL for (int j = 0; j < vectors; j++)
                    sum[q * vectors + j] += left * *(const NAME(vector) *)(
                        b + q * b_panel + (k * vectors + j) * lanes);
        } else {
            UNROLL for (int q = 0; q < panels; q++) {
                UNROLL for (int j = 0; j < vectors; j++)
                    right[j] = *(const NAME(vector) *)(b + q * b_panel + (k * vectors + j) * lanes);
                UNROLL for (int i = 0; i < rows; i++) {
                    const REAL left = a[i * a_row + k * a_depth];
                    UNROLL for (int j = 0; j < vectors; j++)
                        sum[i * wide + q * vectors + j] += left * right[j];
                }
            }
        }
    }
    UNROLL for (int i = 0; i < rows; i++)
        UNROLL for (int j = 0; j < wide; j++) {
            NAME(vector) *const out = (NAME(vector) *)(c + i * c_row + j * lanes);
            if (add) sum[i * wide + j] += *out;
            *out = sum[i * wide + j];
        }
}

#define TILE(r, p, v)                                                                                  \
    case (r) * 64 + (p) * 8 + (v):                                                                     \
        NAME(tile)(r, p, v, depth, a, a_row, a_depth, b, b_panel, c, c_row, add);                      \
        return;
#define TILES(r) TILE(r, 1, 1) TILE(r, 1, 2) TILE(r, 1, 3) TILE(r, 1, 4)

/* a tile whose sizes are known at run time only */
static void NAME(any_tile)(int rows, int panels, int vectors, intptr_t depth, const REAL *a,
                           intptr_t a_row, intptr_t a_depth, const REAL *b, intptr_t b_panel, REAL *c,
                           intptr_t c_row, bool add)
{
    switch (rows * 64 + panels * 8 + vectors) {
        TILES(1) TILES(2) TILES(3)
        TILES(4) TILES(5) TILES(6)
        TILE(1, 2, PANEL_VECTORS) TILE(1, 3, PANEL_VECTORS) TILE(1, 4, PANEL_VECTORS)
        TILE(1, 5, PANEL_VECTORS) TILE(1, 6, PANEL_VECTORS) TILE(2, 2, PANEL_VECTORS)
        TILE(2, 3, PANEL_VECTORS) TILE(3, 2, PANEL_VECTORS)
    }
}

/* c (rows, columns) = a @ packed. Rows of c have room for whole vectors. */
static void NAME(product)(intptr_t rows, intptr_t depth, intptr_t columns, const REAL *a,
                          intptr_t a_row, intptr_t a_depth, const REAL *packed, REAL *c, intptr_t c_row)
{
    const intptr_t panel = NAME(PANEL), lanes = NAME(LANES);
    const intptr_t blocks = (rows + TILE_ROWS - 1) / TILE_ROWS;
    const intptr_t together = rows >= TILE_ROWS / 2 + 1 ? 1 : TILE_ROWS / rows; /* panels */
    const intptr_t full = columns / panel;
    for (intptr_t k = 0; k < depth; k += DEPTH_BLOCK) {
        const intptr_t part = depth - k < DEPTH_BLOCK ? depth - k : DEPTH_BLOCK;
        for (intptr_t j = 0; j * panel < columns;) {
            const intptr_t left = (columns - j * panel + lanes - 1) / lanes;
            const int vectors = left < PANEL_VECTORS ? (int)left : PANEL_VECTORS;
            intptr_t n = j < full && full - j < together ? full - j : together;
            if (vectors < PANEL_VECTORS || j >= full) n = 1;
            const REAL *b = packed + j * panel * depth + k * vectors * lanes;
            for (intptr_t block = 0; block < blocks; block++) {
                const intptr_t i = rows * block / blocks, stop = rows * (block + 1) / blocks;
                NAME(any_tile)((int)(stop - i), (int)n, vectors, part, a + i * a_row + k * a_depth,
                               a_row, a_depth, b, panel * depth, c + i * c_row + j * panel, c_row,
                               k > 0);
            }
            j += n;
        }
    }
}

#undef TILE
#undef TILES

/* Pack a left operand in blocks of rows, (depth, rows of the block) each. */
static void NAME(pack_left)(REAL *restrict to, const REAL *restrict from, intptr_t row, intptr_t column,
                            intptr_t rows, intptr_t depth)
{
    enum { TOGETHER = 8 }; /* blocks, if rows are contiguous: they are read in long pieces */
    const intptr_t blocks = (rows + TILE_ROWS - 1) / TILE_ROWS;
    for (intptr_t first = 0; first < blocks; first += TOGETHER) {
        const intptr_t count = first + TOGETHER < blocks ? TOGETHER : blocks - first;
        intptr_t start[TOGETHER + 1];
        for (intptr_t b = 0; b <= count; b++) start[b] = rows * (first + b) / blocks;
        for (intptr_t k = 0; row == 1 && k < depth; k++)
            for (intptr_t b = 0; b < count; b++) {
                const intptr_t i = start[b], n = start[b + 1] - i;
                REAL *const out = to + i * depth + k * n;
                const REAL *const in = from + k * column + i;
                if (n == TILE_ROWS) memcpy(out, in, TILE_ROWS * sizeof(REAL));
                else for (intptr_t r = 0; r < n; r++) out[r] = in[r];
            }
        for (intptr_t b = 0; row != 1 && b < count; b++) {
            const intptr_t i = start[b], n = start[b + 1] - i;
            REAL *const out = to + i * depth;
            const REAL *const in = from + i * row;
            if (n == TILE_ROWS)
                for (intptr_t k = 0; k < depth; k++)
                    UNROLL for (int r = 0; r < TILE_ROWS; r++)
                        out[k * TILE_ROWS + r] = in[r * row + k * column];
            else
                for (intptr_t k = 0; k < depth; k++)
                    for (intptr_t r = 0; r < n; r++) out[k * n + r] = in[r * row + k * column];
        }
    }
}

/* c (rows, columns) = a @ b + bias with operands of any strides, in elements; rows of c are contiguous.
   `bias` (columns) may be null. `left` has room for the packed left operand of DEPTH_BLOCK terms, `right` for the right one. */
static void NAME(multiply)(intptr_t rows, intptr_t columns, intptr_t depth, const REAL *a, intptr_t a_row,
                           intptr_t a_column, const REAL *b, intptr_t b_row, intptr_t b_column,
                           const REAL *bias, REAL *c, intptr_t c_row, REAL *left, REAL *right)
{
    const intptr_t panel = NAME(PANEL), lanes = NAME(LANES);
    const intptr_t blocks = (rows + TILE_ROWS - 1) / TILE_ROWS, panels = (columns + panel - 1) / panel;
    /* Rows of a block that few panels need stay in the cache as they are: block after block. Else the
       left operand is packed, and a panel stays there. */
    const bool direct = panels <= FEW_PANELS && a_column == 1;
    for (intptr_t k = 0; k < depth; k += DEPTH_BLOCK) {
        const intptr_t part = depth - k < DEPTH_BLOCK ? depth - k : DEPTH_BLOCK;
        NAME(pack)(right, b + k * b_row, b_row, b_column, part, columns, 0, panels);
        if (!direct) NAME(pack_left)(left, a + k * a_column, a_row, a_column, rows, part);
        for (intptr_t tile = 0; tile < panels * blocks; tile++) {
            const intptr_t j = direct ? tile % panels : tile / blocks;
            const intptr_t block = direct ? tile / panels : tile % blocks;
            const intptr_t width = columns - j * panel < panel ? columns - j * panel : panel;
            const int vectors = (int)((width + lanes - 1) / lanes);
            const intptr_t i = rows * block / blocks, n = rows * (block + 1) / blocks - i;
            REAL *const out = c + i * c_row + j * panel;
            REAL room[TILE_ROWS * NAME(PANEL)];
            const bool whole = width % lanes == 0;
            const REAL *const from = direct ? a + i * a_row + k : left + i * part;
            NAME(any_tile)((int)n, 1, vectors, part, from, direct ? a_row : 1, direct ? 1 : n,
                           right + j * panel * part, 0, whole ? out : room, whole ? c_row : panel,
                           whole && k > 0);
            for (intptr_t r = 0; r < n && !whole; r++)
                for (intptr_t x = 0; x < width; x++)
                    out[r * c_row + x] = room[r * panel + x] + (k > 0 ? out[r * c_row + x] : 0);
            for (intptr_t r = 0; r < n && bias && k + part == depth; r++) /* after all other terms */
                for (intptr_t x = 0; x < width; x++) out[r * c_row + x] += bias[j * panel + x];
        }
    }
}

/* The transpose of c (rows, columns), into rows of c_row elements. */
static void NAME(transpose)(intptr_t rows, intptr_t columns, const REAL *from, intptr_t from_row, REAL *c,
                            intptr_t c_row)
{
    for (intptr_t j = 0; j < columns; j++)
        for (intptr_t i = 0; i < rows; i++) c[j * c_row + i] = from[i * from_row + j];
}

/* `wide` vectors of x @ b for a contiguous vector x; `used` columns of the last vector exist. */
static inline __attribute__((always_inline)) void
NAME(columns)(const int wide, const int used, intptr_t depth, const REAL *x, const REAL *b,
              intptr_t b_row, REAL *c)
{
    const int lanes = NAME(LANES);
    NAME(vector) total[8] = {0};
    for (intptr_t k = 0; k < depth; k += DEPTH_BLOCK) {
        const intptr_t stop = k + DEPTH_BLOCK < depth ? k + DEPTH_BLOCK : depth;
        NAME(vector) sum[8] = {0};
        for (intptr_t i = k; i < stop; i++) {
            if (used == lanes) {
                UNROLL for (int v = 0; v < wide; v++)
                    sum[v] += x[i] * *(const NAME(vector) *)(b + i * b_row + v * lanes);
            } else {
                NAME(vector) right = {0};
                for (int v = 0; v < used; v++) right[v] = b[i * b_row + v];
                sum[0] += x[i] * right;
            }
        }
        UNROLL for (int v = 0; v < wide; v++) total[v] += sum[v];
    }
    if (used == lanes) {
        UNROLL for (int v = 0; v < wide; v++) *(NAME(vector) *)(c + v * lanes) = total[v];
    } else {
        for (int v = 0; v < used; v++) c[v] = total[0][v];
    }
}

/* x @ b for a contiguous column b. */
static REAL NAME(dot)(intptr_t depth, const REAL *x, const REAL *b)
{
    const intptr_t lanes = NAME(LANES);
    REAL total = 0;
    for (intptr_t k = 0; k < depth; k += DEPTH_BLOCK) {
        const intptr_t stop = k + DEPTH_BLOCK < depth ? k + DEPTH_BLOCK : depth;
        NAME(vector) parts[4] = {0};
        intptr_t i = k;
        for (; i + 4 * lanes <= stop; i += 4 * lanes)
            UNROLL for (int v = 0; v < 4; v++)
                parts[v] += *(const NAME(vector) *)(x + i + v * lanes)
                            * *(const NAME(vector) *)(b + i + v * lanes);
        parts[0] = (parts[0] + parts[1]) + (parts[2] + parts[3]);
        REAL sum = 0;
        for (int l = 0; l < NAME(LANES); l++) sum += parts[0][l];
        for (; i < stop; i++) sum += x[i] * b[i];
        total += sum;
    }
    return total;
}

/* c (columns) = x @ b + bias for a contiguous vector x; `bias` may be null. */
static void NAME(multiply_vector)(intptr_t columns, intptr_t depth, const REAL *x, const REAL *b,
                                  intptr_t b_row, intptr_t b_column, const REAL *bias, REAL *c)
{
    const int lanes = NAME(LANES);
    const bool dots = b_row == 1 && b_column != 1;
    intptr_t j = 0;
    for (; dots && j < columns; j++) c[j] = NAME(dot)(depth, x, b + j * b_column);
    for (; j + 8 * lanes <= columns; j += 8 * lanes)
        NAME(columns)(8, lanes, depth, x, b + j, b_row, c + j);
    for (; j + lanes <= columns; j += lanes)
        NAME(columns)(1, lanes, depth, x, b + j, b_row, c + j);
    if (j < columns) NAME(columns)(1, (int)(columns - j), depth, x, b + j, b_row, c + j);
    for (j = 0; bias && j < columns; j++) c[j] += bias[j];
}
