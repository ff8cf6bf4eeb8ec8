/* CUDA's language on the host, as far as the library's kernels need it: see cuda_on_host.py.

   One block runs at a time, and one thread of it. Where a kernel has barriers or shuffles, each
   thread is a context of its own, which continues when all others have reached the barrier. */

#include <ucontext.h>

#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#define __global__
#define __device__
#define __host__
#define __constant__ static
#define __shared__ static
#define __forceinline__ inline
#define __noinline__ __attribute__((noinline))
#define __align__(n) __attribute__((aligned(n)))
#define __launch_bounds__(...)

struct dim3 { unsigned x, y, z; };
static dim3 threadIdx, blockIdx, blockDim, gridDim;
static const int warpSize = 32;
alignas(64) static char dynamic_shared[1 << 18];

namespace host {

enum State { READY, AT_BARRIER, AT_WARP_BARRIER, DONE };
struct Thread { ucontext_t context; State state; dim3 index; uint64_t shown; };
static const size_t STACK = 1 << 16;
static std::vector<Thread> threads;
static std::vector<char> stacks;
static ucontext_t scheduler;
static unsigned current;
static void (*start)(void **);
static void **arguments;

static void wait(State state)
{
    threads[current].state = state;
    swapcontext(&threads[current].context, &scheduler);
}

static void entry()
{
    start(arguments);
    threads[current].state = DONE;
    swapcontext(&threads[current].context, &scheduler);
}

/* Let threads continue that wait together; false if some others will never come. */
static bool release(unsigned first, unsigned last, State state)
{
    for (unsigned i = first; i < last; i++)
        if (threads[i].state != state) return false;
    for (unsigned i = first; i < last; i++) threads[i].state = READY;
    return true;
}

static bool block_with_barriers(unsigned n)
{
    threads.resize(n);
    stacks.resize(n * STACK);
    for (unsigned i = 0; i < n; i++) {
        Thread &t = threads[i];
        getcontext(&t.context);
        t.context.uc_stack.ss_sp = &stacks[i * STACK];
        t.context.uc_stack.ss_size = STACK;
        t.context.uc_link = &scheduler;
        t.state = READY;
        t.index = {i % blockDim.x, i / blockDim.x % blockDim.y, i / blockDim.x / blockDim.y};
        makecontext(&t.context, entry, 0);
    }
    for (;;) {
        unsigned done = 0;
        for (current = 0; current < n; current++) {
            if (threads[current].state == READY) {
                threadIdx = threads[current].index;
                swapcontext(&scheduler, &threads[current].context);
            }
            done += threads[current].state == DONE;
        }
        if (done == n) return true;
        bool any = release(0, n, AT_BARRIER);
        for (unsigned i = 0; i < n; i += 32)
            any |= release(i, i + 32 < n ? i + 32 : n, AT_WARP_BARRIER);
        if (!any) return false;
    }
}

static bool launch(void (*run)(void **), void **a, const unsigned *grid, const unsigned *block, bool barriers)
{
    gridDim = {grid[0], grid[1], grid[2]};
    blockDim = {block[0], block[1], block[2]};
    start = run, arguments = a;
    for (unsigned z = 0; z < gridDim.z; z++)
        for (unsigned y = 0; y < gridDim.y; y++)
            for (unsigned x = 0; x < gridDim.x; x++) {
                blockIdx = {x, y, z};
                if (barriers) {
                    if (!block_with_barriers(blockDim.x * blockDim.y * blockDim.z)) return false;
                    continue;
                }
                for (unsigned k = 0; k < blockDim.z; k++)
                    for (unsigned j = 0; j < blockDim.y; j++)
                        for (unsigned i = 0; i < blockDim.x; i++) {
                            threadIdx = {i, j, k};
                            run(a);
                        }
            }
    return true;
}

template <class T> T shuffled(T value, unsigned lane)
{
    static_assert(sizeof(T) <= 8, "a shuffle of more than 8 bytes");
    Thread *warp = &threads[current / 32 * 32];
    memcpy(&threads[current].shown, &value, sizeof value);
    wait(AT_WARP_BARRIER);
    memcpy(&value, &warp[lane % 32].shown, sizeof value);
    wait(AT_WARP_BARRIER);
    return value;
}

/* The parameters of a kernel, as NumPy's codes: "*f4" a pointer, "i8" a number, "V24" a struct. */
template <class T> std::string code()
{
    typedef typename std::remove_cv<T>::type U;
    if constexpr (std::is_pointer<U>::value) return "*" + code<typename std::remove_pointer<U>::type>();
    else if constexpr (std::is_void<U>::value) return "v";
    else {
        const char *kind = std::is_same<U, bool>::value ? "b" : std::is_floating_point<U>::value ? "f"
            : !std::is_integral<U>::value ? "V" : std::is_signed<U>::value ? "i" : "u";
        return kind + std::to_string(sizeof(U));
    }
}
template <class... A> const char *codes(void (*)(A...))
{
    static std::string all;
    all = "";
    ((all += code<A>() + " "), ...);
    return all.c_str();
}
template <class... A, size_t... I> void call(void (*f)(A...), void **a, std::index_sequence<I...>)
{
    f(*(typename std::remove_cv<A>::type *)a[I]...);
}
template <class... A> void call(void (*f)(A...), void **a)
{
    call(f, a, std::index_sequence_for<A...>());
}

template <class A, class B> A same_bits(B b)
{
    static_assert(sizeof(A) == sizeof(B), "");
    A a;
    memcpy(&a, &b, sizeof a);
    return a;
}

}  // namespace host

static inline void __syncthreads() { host::wait(host::AT_BARRIER); }
static inline void __syncwarp(unsigned = ~0u) { host::wait(host::AT_WARP_BARRIER); }
static inline void __threadfence() {}
static inline void __threadfence_block() {}
template <class T> T __shfl_sync(unsigned, T x, int lane) { return host::shuffled(x, lane); }
template <class T> T __shfl_xor_sync(unsigned, T x, int mask)
{
    return host::shuffled(x, host::current % 32 ^ mask);
}
template <class T> T __shfl_down_sync(unsigned, T x, unsigned by)
{
    const unsigned lane = host::current % 32;
    return host::shuffled(x, lane + by < 32 ? lane + by : lane);
}
template <class T> T __shfl_up_sync(unsigned, T x, unsigned by)
{
    const unsigned lane = host::current % 32;
    return host::shuffled(x, lane >= by ? lane - by : lane);
}
template <class T> T __ldg(const T *x) { return *x; }
template <class T> T atomicAdd(T *a, T x) { T old = *a; *a = old + x; return old; }
template <class T> T atomicMax(T *a, T x) { T old = *a; *a = x > old ? x : old; return old; }
template <class T> T atomicMin(T *a, T x) { T old = *a; *a = x < old ? x : old; return old; }
template <class T> T atomicExch(T *a, T x) { T old = *a; *a = x; return old; }
template <class T> T atomicCAS(T *a, T was, T x) { T old = *a; if (old == was) *a = x; return old; }
static inline uint64_t __umul64hi(uint64_t a, uint64_t b) { return (unsigned __int128)a * b >> 64; }
static inline uint32_t __umulhi(uint32_t a, uint32_t b) { return (uint64_t)a * b >> 32; }
static inline int __popc(unsigned x) { return __builtin_popcount(x); }
static inline int __clz(int x) { return x ? __builtin_clz(x) : 32; }
static inline int __ffs(int x) { return __builtin_ffs(x); }
static inline int __float_as_int(float x) { return host::same_bits<int>(x); }
static inline unsigned __float_as_uint(float x) { return host::same_bits<unsigned>(x); }
static inline float __int_as_float(int x) { return host::same_bits<float>(x); }
static inline float __uint_as_float(unsigned x) { return host::same_bits<float>(x); }
static inline long long __double_as_longlong(double x) { return host::same_bits<long long>(x); }
static inline double __longlong_as_double(long long x) { return host::same_bits<double>(x); }
static inline float rsqrtf(float x) { return 1 / sqrtf(x); }
static inline double rsqrt(double x) { return 1 / sqrt(x); }
static inline float __fmaf_rn(float a, float b, float c) { return fmaf(a, b, c); }
static inline double __fma_rn(double a, double b, double c) { return fma(a, b, c); }
template <class A, class B> typename std::common_type<A, B>::type min(A a, B b) { return b < a ? b : a; }
template <class A, class B> typename std::common_type<A, B>::type max(A a, B b) { return a < b ? b : a; }
using std::abs; using std::copysign; using std::cos; using std::exp; using std::fabs; using std::fma;
using std::isfinite; using std::isinf; using std::isnan; using std::log; using std::pow; using std::sin;
using std::sqrt; using std::tanh;
