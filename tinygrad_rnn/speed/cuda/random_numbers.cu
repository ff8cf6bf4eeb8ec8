/* The numbers that numpy.random.Philox draws: Philox4x64 of ten rounds (Salmon, Moraes, Dror and Shaw
   2011). A block of the generator is four words of 64 bits, a function of key and counter. REAL is
   defined before. */

struct State {
    uint64_t counter[4], key[2];
    uint64_t buffer[4]; /* the block of the counter; the words from `position` on are not drawn yet */
    int64_t position;
    int64_t halves; /* 1: the next number of 32 bits is `half` */
    uint64_t half;
};

static __device__ uint64_t high_product(uint64_t a, uint64_t b)
{
    const uint64_t low = (uint32_t)a, high = a >> 32, first = (uint32_t)b, second = b >> 32;
    const uint64_t p = high * first + (low * first >> 32), q = low * second + (uint32_t)p;
    return high * second + (p >> 32) + (q >> 32);
}

/* Return block `number`: 0 is the buffer, the others follow. */
static __device__ void draw(const State &s, uint64_t number, uint64_t *word)
{
    if (number == 0) {
        for (int i = 0; i < 4; i++) word[i] = s.buffer[i];
        return;
    }
    uint64_t a = s.counter[0] + number, k = s.key[0], m = s.key[1];
    uint64_t b = s.counter[1] + (a < number), c = s.counter[2] + (a < number && b == 0);
    uint64_t d = s.counter[3] + (a < number && b == 0 && c == 0);
    for (int round = 0; round < 10; round++) {
        const uint64_t p = high_product(0xD2E7470EE14C6C93u, a), q = high_product(0xCA5A826395121157u, c);
        const uint64_t low = 0xD2E7470EE14C6C93u * a, other = 0xCA5A826395121157u * c;
        a = q ^ b ^ k, b = other, c = p ^ d ^ m, d = low;
        k += 0x9E3779B97F4A7C15u, m += 0xBB67AE8584CAA73Bu;
    }
    word[0] = a, word[1] = b, word[2] = c, word[3] = d;
}

/* Generator.integers(0, 2**32, dtype=uint32) <= limit: two numbers a word, the low half first. */
static __device__ void keep(const State &s, uint32_t limit, int64_t count, bool *out)
{
    const int64_t number = (int64_t)blockIdx.x * blockDim.x + threadIdx.x;
    const int64_t first = s.halves + 8 * number - 2 * s.position;
    if (number == 0 && s.halves) out[0] = (uint32_t)s.half <= limit;
    if (first >= count) return;
    uint64_t word[4];
    draw(s, number, word);
    for (int i = 0; i < 8; i++) {
        const int64_t k = first + i;
        if (k >= s.halves && k < count) out[k] = (uint32_t)(word[i / 2] >> 32 * (i % 2)) <= limit;
    }
}

/* Generator.uniform, rounded: one number a word. */
static __device__ void draw_uniform(const State &s, double low, double range, int64_t count, REAL *out)
{
    const int64_t number = (int64_t)blockIdx.x * blockDim.x + threadIdx.x;
    const int64_t first = 4 * number - s.position;
    if (first >= count) return;
    uint64_t word[4];
    draw(s, number, word);
    for (int i = 0; i < 4; i++) {
        const int64_t k = first + i;
        if (k >= 0 && k < count)
            out[k] = (REAL)(low + range * ((double)(word[i] >> 11) * (1.0 / 9007199254740992.0)));
    }
}

/* The state is an argument, or, in a graph, on the device: `_at`. */
extern "C" __global__ void keep_mask(const __grid_constant__ State s, uint32_t limit, int64_t count, bool *out)
{
    keep(s, limit, count, out);
}

extern "C" __global__ void keep_mask_at(const State *s, uint32_t limit, int64_t count, bool *out)
{
    keep(*s, limit, count, out);
}

extern "C" __global__ void uniform(const __grid_constant__ State s, double low, double range,
                                   int64_t count, REAL *out)
{
    draw_uniform(s, low, range, count, out);
}

extern "C" __global__ void uniform_at(const State *s, double low, double range, int64_t count, REAL *out)
{
    draw_uniform(*s, low, range, count, out);
}
