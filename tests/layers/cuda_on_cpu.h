// Just enough of CUDA to run a kernel's source on a CPU, compiled by g++. Each thread of a block is a coroutine
// that runs to its next barrier or shuffle; blocks run one after the other.
#include <ucontext.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <functional>
#include <vector>

#define ON_CPU
#define __device__
#define __global__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __restrict__
#define __shared__ static
#define __align__(n)

using std::max;
using std::min;

struct Index {
  int x, y;
};
struct float4 {
  float x, y, z, w;
};
struct float2 {
  float x, y;
};
struct uint2 {
  unsigned x, y;
};
static float2 make_float2(float x, float y) { return {x, y}; }
static float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }

static Index threadIdx, blockIdx;
static std::vector<ucontext_t> contexts;
static std::vector<float> given[2];  // to shuffles, by turns
static std::vector<int> turns;
static ucontext_t scheduler;

static void __syncthreads() { swapcontext(&contexts[threadIdx.x], &scheduler); }

static float __shfl_xor_sync(unsigned, float value, int distance) {
  const int tid = threadIdx.x, turn = turns[tid]++ & 1;
  given[turn][tid] = value;
  __syncthreads();
  return given[turn][tid ^ distance];
}

// What the lanes of a warp give to `mma`, by turns.
struct Factors {
  unsigned a[4], b[2];
};
static std::vector<Factors> factors[2];

static float __uint_as_float(unsigned x) {
  float y;
  std::memcpy(&y, &x, 4);
  return y;
}
static unsigned __float_as_uint(float x) {
  unsigned y;
  std::memcpy(&y, &x, 4);
  return y;
}
// To the nearest of 10 bits of mantissa, ties away from zero.
static unsigned to_tf32(float x) { return (__float_as_uint(x) + 0x1000) & 0xffffe000; }

// The sum of the products of the factors in two words.
static float times(unsigned a, unsigned b) {
#if BFLOAT16
  return __uint_as_float(a << 16) * __uint_as_float(b << 16) +
         __uint_as_float(a & 0xffff0000) * __uint_as_float(b & 0xffff0000);
#else
  return __uint_as_float(a) * __uint_as_float(b);
#endif
}

// As NVIDIA's PTX manual lays out m16n8k8 in TF32, and m16n8k16 in bfloat16.
static void mma(float (&sums)[4], unsigned a0, unsigned a1, unsigned a2, unsigned a3, unsigned b0, unsigned b1) {
  const int tid = threadIdx.x, turn = turns[tid]++ & 1, warp = tid & ~31, lane = tid & 31;
  factors[turn][tid] = {{a0, a1, a2, a3}, {b0, b1}};
  __syncthreads();
  for (int n = 0; n < 4; ++n) {
    const int row = lane / 4, column = lane % 4 * 2 + n % 2, upper = n / 2;  // upper: row + 8
    for (int k = 0; k < 4; ++k) {
      const Factors& a = factors[turn][warp + row * 4 + k];
      const Factors& b = factors[turn][warp + column * 4 + k];
      sums[n] += times(a.a[upper], b.b[0]) + times(a.a[2 + upper], b.b[1]);
    }
  }
}

static void atomicMin(int* at, int value) { *at = min(*at, value); }
static void atomicMax(int* at, int value) { *at = max(*at, value); }
#define __expf(x) std::exp(x)  // glibc declares a function of this name
static float __fdividef(float a, float b) { return a / b; }

static void start_copy(void* to, const void* from) { std::memcpy(to, from, 16); }
static void commit_copies() {}
static void wait_for_copies() {}

static std::function<void()> body;
static std::vector<char> ended;
static void start() {
  body();
  ended[threadIdx.x] = true;
  __syncthreads();
}

static void launch(int blocks_x, int blocks_y, int threads, std::function<void()> kernel) {
  const size_t stack = 1 << 16;
  std::vector<char> stacks(stack * threads);
  body = kernel;
  for (int y = 0; y < blocks_y; ++y)
    for (int x = 0; x < blocks_x; ++x) {
      contexts.assign(threads, {});
      turns.assign(threads, 0);
      ended.assign(threads, false);
      for (auto& values : given) values.assign(threads, NAN);
      for (auto& values : factors) values.assign(threads, {});
      for (int t = 0; t < threads; ++t) {
        getcontext(&contexts[t]);
        contexts[t].uc_stack.ss_sp = &stacks[stack * t];
        contexts[t].uc_stack.ss_size = stack;
        makecontext(&contexts[t], start, 0);
      }
      while (!ended[0])
        for (int t = 0; t < threads; ++t) {
          threadIdx = {t, 0}, blockIdx = {x, y};
          swapcontext(&scheduler, &contexts[t]);
        }
    }
}
