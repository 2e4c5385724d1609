// Products on tensor cores, in TF32 or bfloat16, summed in float32.
//
// A product has the weights as its first factor and the transposed rows as its second: gates[column, row] =
// sum of weights[column, k] * h[row, k] over k. Every warp keeps its weights in registers, as the first factor of
// `mma` wants them, for all steps. The second factor goes through shared memory. `mma` has 8 columns, so a block
// has at most 8 rows.
//
// A term of a sum may be at any place. Lane n of a warp holds, of `mma`'s factors, what belongs to the quarter
// n % 4. We give each quarter neighbouring terms, so that a lane reads two words at once.
//
// The factors are bfloat16 if arrays are, else TF32.

#ifndef ON_CPU
// Rounds to TF32.
static __device__ __forceinline__ unsigned to_tf32(float x) {
  unsigned y;
  asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(y) : "f"(x));
  return y;
}

// sums += a * b on tensor cores: a is 16 x 8 (bfloat16: 16 x 16), b has 8 columns.
static __device__ __forceinline__ void mma(float (&sums)[4], unsigned a0, unsigned a1, unsigned a2, unsigned a3,
                                           unsigned b0, unsigned b1) {
#if BFLOAT16
  asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
#else
  asm("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
#endif
      : "+f"(sums[0]), "+f"(sums[1]), "+f"(sums[2]), "+f"(sums[3])
      : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
}
#endif

#if BFLOAT16
#define FACTORS 2  // of a product in a word
#else
#define FACTORS 1
#endif
#define WARPS (GATES / 32)
#define UNIT_TILES (HIDDEN / 16)
// Words of a quarter in shared memory, with gaps that spread lanes over the banks: 8 more than a multiple of 32.
#define SPREAD(words) (8 + 32 * (((words) - 8 + 31) / 32))

// Packs factors of products into a word.
static __device__ __forceinline__ unsigned pack(float first, float second) {
#if BFLOAT16
  return to_stored(first) | static_cast<unsigned>(to_stored(second)) << 16;
#else
  return to_tf32(first);
#endif
}

// Of a row of what a step reads, in shared memory; 16 bytes more, so that lanes find theirs in different banks.
#define FORWARD_ROW (GATES + CHUNK / static_cast<int>(sizeof(Stored)))
#define BACKWARD_ROW (6 * HIDDEN + CHUNK / static_cast<int>(sizeof(Stored)))

// ---- forward -----------------------------------------------------------------------------------------------

#define WORDS (HIDDEN / 4 / FACTORS)  // of a quarter of h
#define QUARTER SPREAD(WORDS)
#define STATE_ROW (4 * QUARTER + 2)

// Places the factor of a row's term. A quarter of the row has `terms` terms in `quarter_size` words.
static __device__ __forceinline__ void put(unsigned* words, int row, int row_size, int quarter_size, int terms,
                                           int term, float value) {
  const int quarter = term / terms, at = row * row_size + quarter * quarter_size + term % terms / FACTORS;
#if BFLOAT16
  reinterpret_cast<unsigned short*>(words + at)[term % FACTORS] = to_stored(value);
#else
  words[at] = to_tf32(value);
#endif
}

// A warp computes the four gates of 8 units: a tile of i and f, and a tile of g and o. A lane owns one of the
// units in two rows.
extern "C" __global__ void __launch_bounds__(GATES) lstm_forward(
    const int* __restrict__ sizes,
    const int* __restrict__ order,               // [batch]
    const unsigned char* __restrict__ mask,      // [batch, time]
    const Stored* __restrict__ projected0,       // [batch, time, 4*hidden], of the first direction
#if DIRECTIONS == 2
    const Stored* __restrict__ projected1,
#endif
    const float* __restrict__ recurrent_kernel,  // [directions, hidden, 4*hidden]
    const float* __restrict__ first_h,           // [directions, batch, hidden]
    const float* __restrict__ first_c,
    Stored* __restrict__ outputs,                // [batch, time, directions*hidden]
    float* __restrict__ last_h,                  // [directions, batch, hidden]
    float* __restrict__ last_c
#if SAVING
    , Stored* __restrict__ records
#endif
) {
  __shared__ __align__(8) unsigned state[2][8 * STATE_ROW];
  extern __shared__ float4 dynamic[];
  Stored* const places = reinterpret_cast<Stored*>(dynamic);
  const int tid = threadIdx.x, direction = blockIdx.y, batch = sizes[0], time = sizes[1];
  const bool backwards = (sizes[2] >> direction) & 1;
  const int lane = tid & 31, group = lane >> 2, quarter = lane & 3;
  const int unit = (tid >> 5) * 8 + group;
#if DIRECTIONS == 2
  const Stored* projected = direction ? projected1 : projected0;
#else
  const Stored* projected = projected0;
#endif

  unsigned weights[4][WORDS];  // of each gate
  {
    const float* from = recurrent_kernel + direction * HIDDEN * GATES + unit;
#pragma unroll
    for (int gate = 0; gate < 4; ++gate)
#pragma unroll
      for (int w = 0; w < WORDS; ++w) {
        const float* at = from + (quarter * (HIDDEN / 4) + w * FACTORS) * GATES + gate * HIDDEN;
        weights[gate][w] = pack(at[0], at[(FACTORS - 1) * GATES]);
      }
  }

  unsigned* const bits = reinterpret_cast<unsigned*>(places + AHEAD * ROWS * FORWARD_ROW);
  const Walk walk = find_walk(order, mask, batch, time, bits);
  const int count = walk.end - walk.begin;
  const int from = backwards ? walk.end - 1 : walk.begin, by = backwards ? -1 : 1;
  bool exists[2];
  long long steps[2], state_at[2];
  float h[2], c[2];
#if SAVING
  const long long plane = static_cast<long long>(batch) * time * HIDDEN;
  Stored* record = records + 6 * direction * plane + unit;
#endif
  Stored* output = outputs + direction * HIDDEN + unit;
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    const int row = find_row(order, batch, 2 * quarter + r);
    exists[r] = row >= 0;
    steps[r] = exists[r] ? static_cast<long long>(row) * time : 0;
    state_at[r] = (static_cast<long long>(direction) * batch + max(row, 0)) * HIDDEN + unit;
    h[r] = exists[r] ? first_h[state_at[r]] : 0.0f;
    c[r] = exists[r] ? first_c[state_at[r]] : 0.0f;
    put(state[0], 2 * quarter + r, STATE_ROW, QUARTER, HIDDEN / 4, unit, h[r]);
    for (int t = 0; exists[r] && t < time; ++t) {  // steps that no row of the block has
      if (t == walk.begin) t = walk.end;
      if (t >= time) break;
      output[(steps[r] + t) * (DIRECTIONS * HIDDEN)] = to_stored(0.0f);
#if SAVING
      record[(steps[r] + t) * HIDDEN] = to_stored(0.0f);  // the backward pass multiplies it by 0
#endif
    }
  }

  const ProjectionCopier copier(projected, order, batch, time, FORWARD_ROW);
  for (int n = 0; n < AHEAD - 1; ++n) {
    if (n < count) copier.start(places + n % AHEAD * ROWS * FORWARD_ROW, from + by * n);
    commit_copies();
  }
  wait_for_copies();
  __syncthreads();

  for (int n = 0; n < count; ++n) {
    const int ahead = n + AHEAD - 1, t = from + by * n;
    if (ahead < count) copier.start(places + ahead % AHEAD * ROWS * FORWARD_ROW, from + by * ahead);
    commit_copies();
    // Lanes without a row read another's.
    const Stored* gates = places + n % AHEAD * ROWS * FORWARD_ROW + 2 * quarter % ROWS * FORWARD_ROW + unit;
    // [tile, sum]: gate 2*tile in both rows, then gate 2*tile + 1. Two sums are two chains of `mma`.
    float sums[2][2][4];
#pragma unroll
    for (int tile = 0; tile < 2; ++tile)
#pragma unroll
      for (int k = 0; k < 4; ++k) {
        sums[tile][0][k] = from_stored(gates[k % 2 * FORWARD_ROW + (2 * tile + k / 2) * HIDDEN]);
        sums[tile][1][k] = 0.0f;
      }
    const unsigned* now = state[n & 1] + group * STATE_ROW + quarter * QUARTER;
#pragma unroll
    for (int w = 0; w < WORDS; w += 2) {
      const uint2 b = *reinterpret_cast<const uint2*>(now + w);
#pragma unroll
      for (int tile = 0; tile < 2; ++tile)
        mma(sums[tile][w / 2 % 2], weights[2 * tile][w], weights[2 * tile + 1][w], weights[2 * tile][w + 1],
            weights[2 * tile + 1][w + 1], b.x, b.y);
    }
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      const bool real = walk.real(2 * quarter + r, t);
      const float i = sigmoid(sums[0][0][r] + sums[0][1][r]);
      const float f = sigmoid(sums[0][0][2 + r] + sums[0][1][2 + r]);
      const float g = tanh_of(sums[1][0][r] + sums[1][1][r]);
      const float o = sigmoid(sums[1][0][2 + r] + sums[1][1][2 + r]);
      const float new_c = f * c[r] + i * g, new_h = o * tanh_of(new_c);
      const float kept_h = real ? new_h : h[r];
      put(state[(n + 1) & 1], 2 * quarter + r, STATE_ROW, QUARTER, HIDDEN / 4, unit, kept_h);
      if (exists[r]) {
        const long long step = steps[r] + t;
        output[step * (DIRECTIONS * HIDDEN)] = to_stored(real ? new_h : 0.0f);
#if SAVING
        Stored* at = record + step * HIDDEN;
        at[0] = to_stored(h[r]);
        at[plane] = to_stored(c[r]);
        at[2 * plane] = to_stored(i);
        at[3 * plane] = to_stored(f);
        at[4 * plane] = to_stored(g);
        at[5 * plane] = to_stored(o);
#endif
      }
      h[r] = kept_h;
      c[r] = real ? new_c : c[r];
    }
    wait_for_copies();
    __syncthreads();
  }
#pragma unroll
  for (int r = 0; r < 2; ++r)
    if (exists[r]) {
      last_h[state_at[r]] = h[r];
      last_c[state_at[r]] = c[r];
    }
}

// ---- backward ----------------------------------------------------------------------------------------------

#define HALF_WORDS (HIDDEN / 2 / FACTORS)  // of a quarter of two gates
#define HALF_QUARTER SPREAD(HALF_WORDS)
#define HALF_ROW (4 * HALF_QUARTER + 2)

// Two warps share a tile of 16 units: one sums over the gates i and f, the other over g and o. They exchange
// their sums, and each owns 8 of the units.
extern "C" __global__ void __launch_bounds__(GATES) lstm_backward(
    const int* __restrict__ sizes,
    const int* __restrict__ order,
    const unsigned char* __restrict__ mask,
    const float* __restrict__ recurrent_kernel,  // [directions, hidden, 4*hidden]
    const Stored* __restrict__ records,
    const Stored* __restrict__ of_outputs,       // the gradients, shaped as what they are of
    const float* __restrict__ of_last_h,
    const float* __restrict__ of_last_c,
    Stored* __restrict__ of_projected0,          // [batch, time, 4*hidden]
#if DIRECTIONS == 2
    Stored* __restrict__ of_projected1,
#endif
    float* __restrict__ of_first_h,
    float* __restrict__ of_first_c) {
  __shared__ __align__(8) unsigned of_gates[2][8 * HALF_ROW];
  __shared__ float2 exchanged[WARPS][32];
  extern __shared__ float4 dynamic[];
  Stored* const places = reinterpret_cast<Stored*>(dynamic);
  const int tid = threadIdx.x, direction = blockIdx.y, batch = sizes[0], time = sizes[1];
  const bool backwards = (sizes[2] >> direction) & 1;
  const int lane = tid & 31, warp = tid >> 5, group = lane >> 2, quarter = lane & 3;
  const int tile = warp % UNIT_TILES, half = warp / UNIT_TILES, partner = tile + (1 - half) * UNIT_TILES;
  const int unit = tile * 16 + half * 8 + group;
#if DIRECTIONS == 2
  Stored* of_projected = direction ? of_projected1 : of_projected0;
#else
  Stored* of_projected = of_projected0;
#endif

  unsigned weights[2][HALF_WORDS];  // of two units
  {
    const float* from = recurrent_kernel + (direction * HIDDEN + tile * 16 + group) * GATES + half * 2 * HIDDEN;
#pragma unroll
    for (int u = 0; u < 2; ++u)
#pragma unroll
      for (int w = 0; w < HALF_WORDS; ++w) {
        const float* at = from + u * 8 * GATES + quarter * (HIDDEN / 2) + w * FACTORS;
        weights[u][w] = pack(at[0], at[FACTORS - 1]);
      }
  }

  unsigned* const bits = reinterpret_cast<unsigned*>(places + AHEAD * ROWS * BACKWARD_ROW);
  const Walk walk = find_walk(order, mask, batch, time, bits);
  // From the last step that the forward pass ran to its first.
  const int count = walk.end - walk.begin;
  const int from = backwards ? walk.begin : walk.end - 1, by = backwards ? 1 : -1;
  Stored* result = of_projected + unit;
  bool exists[2];
  long long steps[2], state_at[2];
  float of_h[2], of_c[2];
  auto write = [&](long long step, float i, float f, float g, float o) {
    Stored* at = result + step * GATES;
    at[0] = to_stored(i);
    at[HIDDEN] = to_stored(f);
    at[2 * HIDDEN] = to_stored(g);
    at[3 * HIDDEN] = to_stored(o);
  };
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    const int row = find_row(order, batch, 2 * quarter + r);
    exists[r] = row >= 0;
    steps[r] = exists[r] ? static_cast<long long>(row) * time : 0;
    state_at[r] = (static_cast<long long>(direction) * batch + max(row, 0)) * HIDDEN + unit;
    of_h[r] = exists[r] ? of_last_h[state_at[r]] : 0.0f;
    of_c[r] = exists[r] ? of_last_c[state_at[r]] : 0.0f;
    for (int t = 0; exists[r] && t < time; ++t) {
      if (t == walk.begin) t = walk.end;
      if (t >= time) break;
      write(steps[r] + t, 0.0f, 0.0f, 0.0f, 0.0f);
    }
  }

  const RecordCopier copier(records, of_outputs, order, batch, time, direction, BACKWARD_ROW);
  for (int n = 0; n < AHEAD - 1; ++n) {
    if (n < count) copier.start(places + n % AHEAD * ROWS * BACKWARD_ROW, from + by * n);
    commit_copies();
  }
  wait_for_copies();
  __syncthreads();

  for (int n = 0; n < count; ++n) {
    const int ahead = n + AHEAD - 1, t = from + by * n;
    if (ahead < count) copier.start(places + ahead % AHEAD * ROWS * BACKWARD_ROW, from + by * ahead);
    commit_copies();
    const Stored* record =
        places + n % AHEAD * ROWS * BACKWARD_ROW + 2 * quarter % ROWS * BACKWARD_ROW + unit;
    const bool real[2] = {walk.real(2 * quarter, t), walk.real(2 * quarter + 1, t)};
    float forget[2];
    float of_new_c[2];
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      const Stored* at = record + r * BACKWARD_ROW;
      const float c = from_stored(at[0]), i = from_stored(at[HIDDEN]), f = from_stored(at[2 * HIDDEN]);
      const float g = from_stored(at[3 * HIDDEN]), o = from_stored(at[4 * HIDDEN]);
      const float tanh_c = tanh_of(f * c + i * g);
      const float of_new_h = of_h[r] + from_stored(at[5 * HIDDEN]);
      forget[r] = f;
      of_new_c[r] = of_c[r] + of_new_h * o * (1.0f - tanh_c * tanh_c);
      float of_i = of_new_c[r] * g * i * (1.0f - i), of_f = of_new_c[r] * c * f * (1.0f - f);
      float of_g = of_new_c[r] * i * (1.0f - g * g), of_o = of_new_h * tanh_c * o * (1.0f - o);
      if (!real[r]) of_i = of_f = of_g = of_o = 0.0f;
      const int slot = 2 * quarter + r;
      put(of_gates[0], slot, HALF_ROW, HALF_QUARTER, HIDDEN / 2, unit, of_i);
      put(of_gates[0], slot, HALF_ROW, HALF_QUARTER, HIDDEN / 2, HIDDEN + unit, of_f);
      put(of_gates[1], slot, HALF_ROW, HALF_QUARTER, HIDDEN / 2, unit, of_g);
      put(of_gates[1], slot, HALF_ROW, HALF_QUARTER, HIDDEN / 2, HIDDEN + unit, of_o);
      if (exists[r]) write(steps[r] + t, of_i, of_f, of_g, of_o);
    }
    wait_for_copies();
    __syncthreads();

    float sums[4][4] = {};  // [chain]: the first unit in both rows, then the second
    const unsigned* at = of_gates[half] + group * HALF_ROW + quarter * HALF_QUARTER;
#pragma unroll
    for (int w = 0; w < HALF_WORDS; w += 2) {
      const uint2 b = *reinterpret_cast<const uint2*>(at + w);
      mma(sums[w / 2 % 4], weights[0][w], weights[1][w], weights[0][w + 1], weights[1][w + 1], b.x, b.y);
    }
    float sum[4];
#pragma unroll
    for (int k = 0; k < 4; ++k) sum[k] = (sums[0][k] + sums[1][k]) + (sums[2][k] + sums[3][k]);
    exchanged[warp][lane] = half ? make_float2(sum[0], sum[1]) : make_float2(sum[2], sum[3]);
    __syncthreads();
    const float2 theirs = exchanged[partner][lane];
    const float of_before[2] = {(half ? sum[2] : sum[0]) + theirs.x, (half ? sum[3] : sum[1]) + theirs.y};
#pragma unroll
    for (int r = 0; r < 2; ++r)
      if (real[r]) {  // a masked step passes the state on unchanged
        of_h[r] = of_before[r];
        of_c[r] = of_new_c[r] * forget[r];
      }
  }
#pragma unroll
  for (int r = 0; r < 2; ++r)
    if (exists[r]) {
      of_first_h[state_at[r]] = of_h[r];
      of_first_c[state_at[r]] = of_c[r];
    }
}
