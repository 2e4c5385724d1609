// What the kernels share. `compile.py` puts it before each of them, with these macros:
//   HIDDEN      units, a multiple of 16
//   ROWS        sequences that a block owns
//   DIRECTIONS  1 or 2
//   BFLOAT16    1 if arrays are bfloat16, else 0: they are float32; state and recurrent kernel always are
//   SAVING      1 if the forward pass writes records for the backward pass, else 0
//
// A block owns ROWS sequences in one direction and walks them from their first real step to their last, with
// 4*HIDDEN threads. The recurrent weights stay on the chip for all steps. Arrays are row-major. `sizes` holds
// batch, time, and a bit for each direction that runs from the last step to the first. `order` holds the rows in
// the order in which blocks take them: rows of like length share a block. `records` holds for each direction six
// arrays [batch, time, hidden]: the state h and c before the step, and the gates i, f, g and o.
//
// A step takes less time than a load from the GPU's memory. So what a step reads is copied to shared memory
// AHEAD - 1 steps before, into one of AHEAD places that are used in turn.

#define GATES (4 * HIDDEN)
#define AHEAD 4
#define CHUNK 16  // bytes that one thread copies at once

#if BFLOAT16
typedef unsigned short Stored;
#else
typedef float Stored;
#endif

static __device__ __forceinline__ float from_stored(Stored x) {
#if BFLOAT16
  return __uint_as_float(static_cast<unsigned>(x) << 16);
#else
  return x;
#endif
}

static __device__ __forceinline__ Stored to_stored(float x) {
#if BFLOAT16 && !defined(ON_CPU)
  unsigned short y;
  asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(y) : "f"(x));
  return y;
#elif BFLOAT16  // to nearest, ties to even
  if (x != x) return 0x7fc0;
  const unsigned bits = __float_as_uint(x);
  return static_cast<Stored>((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
#else
  return x;
#endif
}

#ifndef ON_CPU
static __device__ __forceinline__ void start_copy(void* to, const void* from) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16;"
               :: "r"(static_cast<unsigned>(__cvta_generic_to_shared(to))), "l"(from) : "memory");
}
// Ends the copies of a step.
static __device__ __forceinline__ void commit_copies() { asm volatile("cp.async.commit_group;" ::: "memory"); }
// Waits for all of this thread's copies but those of the last AHEAD - 2 steps.
static __device__ __forceinline__ void wait_for_copies() {
  asm volatile("cp.async.wait_group %0;" :: "n"(AHEAD - 2) : "memory");
}
#endif

static __device__ __forceinline__ float sigmoid(float x) { return __fdividef(1.0f, 1.0f + __expf(-x)); }

static __device__ __forceinline__ float tanh_of(float x) {
  return 1.0f - __fdividef(2.0f, 1.0f + __expf(2.0f * x));
}

// The batch's row that a block has in this slot, or -1.
static __device__ __forceinline__ int find_row(const int* order, int batch, int slot) {
  const int place = blockIdx.x * ROWS + slot;
  return slot < ROWS && place < batch ? order[place] : -1;
}

// The steps that a block walks, and which of them are real.
struct Walk {
  int begin, end;        // the real steps of the block's rows lie in [begin, end)
  const unsigned* bits;  // [ROWS, words]
  int words;

  __device__ __forceinline__ bool real(int slot, int t) const {
    return slot < ROWS && (bits[slot * words + (t >> 5)] >> (t & 31)) & 1;
  }
};

static __device__ Walk find_walk(
    const int* order, const unsigned char* mask, int batch, int time, unsigned* bits) {
  __shared__ int bounds[2];
  const int tid = threadIdx.x, words = (time + 31) / 32;
  if (tid == 0) {
    bounds[0] = time;
    bounds[1] = 0;
  }
  __syncthreads();
  int first = time, last = 0;
  for (int n = tid; n < ROWS * words; n += GATES) {
    const int row = find_row(order, batch, n / words), start = n % words * 32;
    unsigned word = 0;
    for (int t = start; row >= 0 && t < min(start + 32, time); ++t)
      if (mask[static_cast<long long>(row) * time + t]) {
        word |= 1u << (t - start);
        first = min(first, t);
        last = max(last, t + 1);
      }
    bits[n] = word;
  }
  atomicMin(&bounds[0], first);
  atomicMax(&bounds[1], last);
  __syncthreads();
  return {min(bounds[0], bounds[1]), bounds[1], bits, words};
}

// Copies what a step of the forward pass reads: the projections of all rows, [ROWS, row_size].
struct ProjectionCopier {
  static constexpr int PER_ROW = GATES * sizeof(Stored) / CHUNK, ALL = ROWS * PER_ROW;
  static constexpr int MINE = (ALL + GATES - 1) / GATES;
  const Stored* source[MINE];
  int offset[MINE];

  __device__ __forceinline__ ProjectionCopier(
      const Stored* projected, const int* order, int batch, int time, int row_size) {
#pragma unroll
    for (int n = 0; n < MINE; ++n) {
      const int chunk = threadIdx.x + n * GATES, slot = chunk / PER_ROW;
      const int within = chunk % PER_ROW * (CHUNK / sizeof(Stored));
      const int row = max(find_row(order, batch, slot), 0);
      source[n] = projected + static_cast<long long>(row) * time * GATES + within;
      offset[n] = slot * row_size + within;
    }
  }

  __device__ __forceinline__ void start(Stored* place, int t) const {
#pragma unroll
    for (int n = 0; n < MINE; ++n)
      if (threadIdx.x + n * GATES < ALL)
        start_copy(place + offset[n], source[n] + static_cast<long long>(t) * GATES);
  }
};

// Copies what a step of the backward pass reads, [ROWS, row_size]: of each row c, i, f, g, o and the gradient of
// the output, HIDDEN each.
struct RecordCopier {
  static constexpr int PER_ARRAY = HIDDEN * sizeof(Stored) / CHUNK, ALL = ROWS * 6 * PER_ARRAY;
  static constexpr int MINE = (ALL + GATES - 1) / GATES;
  const Stored* source[MINE];
  int offset[MINE], stride[MINE];

  __device__ __forceinline__ RecordCopier(
      const Stored* records, const Stored* of_outputs, const int* order, int batch, int time, int direction,
      int row_size) {
    const long long plane = static_cast<long long>(batch) * time * HIDDEN;
#pragma unroll
    for (int n = 0; n < MINE; ++n) {
      const int chunk = threadIdx.x + n * GATES, slot = chunk / (6 * PER_ARRAY), array = chunk / PER_ARRAY % 6;
      const int within = chunk % PER_ARRAY * (CHUNK / sizeof(Stored));
      const long long step = static_cast<long long>(max(find_row(order, batch, slot), 0)) * time;
      stride[n] = array < 5 ? HIDDEN : DIRECTIONS * HIDDEN;
      source[n] = (array < 5 ? records + (6 * direction + 1 + array) * plane : of_outputs + direction * HIDDEN) +
                  step * stride[n] + within;
      offset[n] = slot * row_size + array * HIDDEN + within;
    }
  }

  __device__ __forceinline__ void start(Stored* place, int t) const {
#pragma unroll
    for (int n = 0; n < MINE; ++n)
      if (threadIdx.x + n * GATES < ALL)
        start_copy(place + offset[n], source[n] + static_cast<long long>(t) * stride[n]);
  }
};
