// Products in float32, by multiply-adds. From HIDDEN = 112 on, a part of the weights is in shared memory.
//
// A step is one product of the state and the weights, a sum over the threads that shared it, the activations,
// and one barrier. Further macro: IN_REGISTERS, how many of its HIDDEN/4 vectors of weights a thread keeps in
// registers.

#define VECTORS (HIDDEN / 4)  // float4 of weights for each thread
// Of a row in shared memory; 8 more, so that the lanes of a warp find theirs in different banks.
#define FORWARD_ROW (GATES + 8)
#define BACKWARD_ROW (6 * HIDDEN + 8)

static __device__ __forceinline__ float4 multiply_add(float a, float4 b, float4 sum) {
  sum.x = fmaf(a, b.x, sum.x);
  sum.y = fmaf(a, b.y, sum.y);
  sum.z = fmaf(a, b.z, sum.z);
  sum.w = fmaf(a, b.w, sum.w);
  return sum;
}

// Exchanges with the lane `lane ^ distance`: keeps one of two values, gives the other away, returns the sum of
// what it kept and what it got. A lane keeps `b` if it has the bit `distance`.
static __device__ __forceinline__ float keep_one(float a, float b, int lane, int distance) {
  bool upper = lane & distance;
  return (upper ? b : a) + __shfl_xor_sync(0xffffffffu, upper ? a : b, distance);
}

// ---- forward -----------------------------------------------------------------------------------------------

// Thread 4*u + q sums the terms k = q, q+4, ... of all gates of unit u, for all rows. Then it owns row q, unit u.
extern "C" __global__ void __launch_bounds__(GATES) lstm_forward(
    const int* __restrict__ sizes,
    const int* __restrict__ order,                 // [batch]
    const unsigned char* __restrict__ mask,        // [batch, time]
    const float* __restrict__ projected0,          // [batch, time, 4*hidden], of the first direction
#if DIRECTIONS == 2
    const float* __restrict__ projected1,
#endif
    const float* __restrict__ recurrent_kernel,    // [directions, hidden, 4*hidden]
    const float* __restrict__ first_h,             // [directions, batch, hidden]
    const float* __restrict__ first_c,
    float* __restrict__ outputs,                   // [batch, time, directions*hidden]
    float* __restrict__ last_h,                    // [directions, batch, hidden]
    float* __restrict__ last_c
#if SAVING
    , float* __restrict__ records
#endif
) {
  __shared__ float4 state[2][HIDDEN];  // h of all rows
  extern __shared__ float4 more_weights[];
  float* const places = reinterpret_cast<float*>(more_weights + (VECTORS - IN_REGISTERS) * GATES);
  const int tid = threadIdx.x, direction = blockIdx.y, batch = sizes[0], time = sizes[1];
  const bool backwards = (sizes[2] >> direction) & 1;
  const int slot = tid & 3, unit = tid >> 2;
#if DIRECTIONS == 2
  const float* projected = direction ? projected1 : projected0;
#else
  const float* projected = projected0;
#endif

  float4 weights[IN_REGISTERS];  // of gates i, f, g, o
  {
    const float* from = recurrent_kernel + direction * HIDDEN * GATES + unit;
#pragma unroll
    for (int n = 0; n < VECTORS; ++n) {
      const float* at = from + (slot + 4 * n) * GATES;
      float4 w = make_float4(at[0], at[HIDDEN], at[2 * HIDDEN], at[3 * HIDDEN]);
      if (n < IN_REGISTERS) {
        weights[n < IN_REGISTERS ? n : 0] = w;
      } else {
        more_weights[(n - IN_REGISTERS) * GATES + tid] = w;
      }
    }
  }

  unsigned* const bits = reinterpret_cast<unsigned*>(places + AHEAD * ROWS * FORWARD_ROW);
  const Walk walk = find_walk(order, mask, batch, time, bits);
  const int found = find_row(order, batch, slot);
  const bool exists = found >= 0;
  const long long row = exists ? found : 0, steps = row * time;
  const long long state_at = (static_cast<long long>(direction) * batch + row) * HIDDEN + unit;
  float h = exists ? first_h[state_at] : 0.0f, c = exists ? first_c[state_at] : 0.0f;
  reinterpret_cast<float*>(state[0])[tid] = h;

  float* output = outputs + steps * (DIRECTIONS * HIDDEN) + direction * HIDDEN + unit;
#if SAVING
  const long long plane = static_cast<long long>(batch) * time * HIDDEN;
  float* record = records + 6 * direction * plane + steps * HIDDEN + unit;
#endif
  if (exists) {  // steps that no row of the block has
    for (int t = 0; t < time; ++t) {
      if (t == walk.begin) t = walk.end;
      if (t >= time) break;
      output[static_cast<long long>(t) * (DIRECTIONS * HIDDEN)] = 0.0f;
#if SAVING
      record[static_cast<long long>(t) * HIDDEN] = 0.0f;  // the backward pass multiplies it by 0
#endif
    }
  }

  const int count = walk.end - walk.begin;
  const int from = backwards ? walk.end - 1 : walk.begin, by = backwards ? -1 : 1;
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
    const float* gates = places + n % AHEAD * ROWS * FORWARD_ROW + slot * FORWARD_ROW + unit;
    const bool real = walk.real(slot, t);

    const float4* now = state[n & 1];
    float4 sums[4] = {};  // of each gate, all rows
#pragma unroll
    for (int m = 0; m < VECTORS; ++m) {
      const float4 w = m < IN_REGISTERS ? weights[m < IN_REGISTERS ? m : 0]
                                        : more_weights[(m - IN_REGISTERS) * GATES + tid];
      const float4 before = now[slot + 4 * m];
      sums[0] = multiply_add(w.x, before, sums[0]);
      sums[1] = multiply_add(w.y, before, sums[1]);
      sums[2] = multiply_add(w.z, before, sums[2]);
      sums[3] = multiply_add(w.w, before, sums[3]);
    }
    float mine[4];  // of each gate, row `slot`
#pragma unroll
    for (int gate = 0; gate < 4; ++gate) {
      const float4 s = sums[gate];
      const float even = keep_one(s.x, s.z, slot, 2), odd = keep_one(s.y, s.w, slot, 2);
      mine[gate] = keep_one(even, odd, slot, 1);
    }
    const float i = sigmoid(gates[0] + mine[0]), f = sigmoid(gates[HIDDEN] + mine[1]);
    const float g = tanh_of(gates[2 * HIDDEN] + mine[2]), o = sigmoid(gates[3 * HIDDEN] + mine[3]);
    const float new_c = f * c + i * g, new_h = o * tanh_of(new_c);
    reinterpret_cast<float*>(state[(n + 1) & 1])[tid] = real ? new_h : h;
    if (exists) {
      output[static_cast<long long>(t) * (DIRECTIONS * HIDDEN)] = real ? new_h : 0.0f;
#if SAVING
      float* at = record + static_cast<long long>(t) * HIDDEN;
      at[0] = h;
      at[plane] = c;
      at[2 * plane] = i;
      at[3 * plane] = f;
      at[4 * plane] = g;
      at[5 * plane] = o;
#endif
    }
    h = real ? new_h : h;
    c = real ? new_c : c;
    wait_for_copies();
    __syncthreads();
  }
  if (exists) {
    last_h[state_at] = h;
    last_c[state_at] = c;
  }
}

// ---- backward ----------------------------------------------------------------------------------------------

// Thread 16*p + s sums the terms j = s, s+16, ... of the units 4*p to 4*p+3, for all rows. Then it owns row s/4,
// unit 4*p + s%4.
extern "C" __global__ void __launch_bounds__(GATES) lstm_backward(
    const int* __restrict__ sizes,
    const int* __restrict__ order,
    const unsigned char* __restrict__ mask,
    const float* __restrict__ recurrent_kernel,    // [directions, hidden, 4*hidden]
    const float* __restrict__ records,             // as above
    const float* __restrict__ of_outputs,         // the gradients, shaped as what they are of
    const float* __restrict__ of_last_h,
    const float* __restrict__ of_last_c,
    float* __restrict__ of_projected0,             // [batch, time, 4*hidden]
#if DIRECTIONS == 2
    float* __restrict__ of_projected1,
#endif
    float* __restrict__ of_first_h,
    float* __restrict__ of_first_c) {
  __shared__ float4 of_gates[2][GATES];  // of all rows
  extern __shared__ float4 more_weights[];
  float* const places = reinterpret_cast<float*>(more_weights + (VECTORS - IN_REGISTERS) * GATES);
  const int tid = threadIdx.x, direction = blockIdx.y, batch = sizes[0], time = sizes[1];
  const bool backwards = (sizes[2] >> direction) & 1;
  const int lane = tid & 15, first_unit = (tid >> 4) * 4;
  const int slot = lane >> 2, unit = first_unit + (lane & 3);
#if DIRECTIONS == 2
  float* of_projected = direction ? of_projected1 : of_projected0;
#else
  float* of_projected = of_projected0;
#endif

  float4 weights[IN_REGISTERS];  // of four units
  {
    const float* from = recurrent_kernel + direction * HIDDEN * GATES + first_unit * GATES;
#pragma unroll
    for (int n = 0; n < VECTORS; ++n) {
      const float* at = from + lane + 16 * n;
      float4 w = make_float4(at[0], at[GATES], at[2 * GATES], at[3 * GATES]);
      if (n < IN_REGISTERS) {
        weights[n < IN_REGISTERS ? n : 0] = w;
      } else {
        more_weights[(n - IN_REGISTERS) * GATES + tid] = w;
      }
    }
  }

  unsigned* const bits = reinterpret_cast<unsigned*>(places + AHEAD * ROWS * BACKWARD_ROW);
  const Walk walk = find_walk(order, mask, batch, time, bits);
  const int found = find_row(order, batch, slot);
  const bool exists = found >= 0;
  const long long row = exists ? found : 0, steps = row * time;
  const long long state_at = (static_cast<long long>(direction) * batch + row) * HIDDEN + unit;
  float of_h = exists ? of_last_h[state_at] : 0.0f, of_c = exists ? of_last_c[state_at] : 0.0f;

  float* result = of_projected + steps * GATES + unit;
  auto write = [&](long long t, float i, float f, float g, float o) {
    float* at = result + t * GATES;
    at[0] = i;
    at[HIDDEN] = f;
    at[2 * HIDDEN] = g;
    at[3 * HIDDEN] = o;
  };
  if (exists) {
    for (int t = 0; t < time; ++t) {
      if (t == walk.begin) t = walk.end;
      if (t >= time) break;
      write(t, 0.0f, 0.0f, 0.0f, 0.0f);
    }
  }

  const int count = walk.end - walk.begin;  // from the last step that the forward pass ran to its first
  const int from = backwards ? walk.begin : walk.end - 1, by = backwards ? 1 : -1;
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
    const float* record = places + n % AHEAD * ROWS * BACKWARD_ROW + slot * BACKWARD_ROW + unit;
    const bool real = walk.real(slot, t);
    const float c = record[0], i = record[HIDDEN], f = record[2 * HIDDEN];
    const float g = record[3 * HIDDEN], o = record[4 * HIDDEN];
    const float tanh_c = tanh_of(f * c + i * g);
    const float of_new_h = of_h + record[5 * HIDDEN];
    const float of_new_c = of_c + of_new_h * o * (1.0f - tanh_c * tanh_c);
    float of_i = of_new_c * g * i * (1.0f - i), of_f = of_new_c * c * f * (1.0f - f);
    float of_g = of_new_c * i * (1.0f - g * g), of_o = of_new_h * tanh_c * o * (1.0f - o);
    if (!real) of_i = of_f = of_g = of_o = 0.0f;
    float* shared = reinterpret_cast<float*>(of_gates[n & 1]) + unit * ROWS + slot;
    shared[0] = of_i;
    shared[HIDDEN * ROWS] = of_f;
    shared[2 * HIDDEN * ROWS] = of_g;
    shared[3 * HIDDEN * ROWS] = of_o;
    if (exists) write(t, of_i, of_f, of_g, of_o);
    wait_for_copies();
    __syncthreads();

    const float4* now = of_gates[n & 1];
    float4 sums[4] = {};  // of each unit, all rows
#pragma unroll
    for (int m = 0; m < VECTORS; ++m) {
      const float4 w = m < IN_REGISTERS ? weights[m < IN_REGISTERS ? m : 0]
                                        : more_weights[(m - IN_REGISTERS) * GATES + tid];
      const float4 gates = now[lane + 16 * m];
      sums[0] = multiply_add(w.x, gates, sums[0]);
      sums[1] = multiply_add(w.y, gates, sums[1]);
      sums[2] = multiply_add(w.z, gates, sums[2]);
      sums[3] = multiply_add(w.w, gates, sums[3]);
    }
    float mine[4];  // of each unit, row `slot`
#pragma unroll
    for (int k = 0; k < 4; ++k) {
      const float4 s = sums[k];
      const float even = keep_one(s.x, s.z, lane, 8), odd = keep_one(s.y, s.w, lane, 8);
      mine[k] = keep_one(even, odd, lane, 4);
    }
    const float even = keep_one(mine[0], mine[2], lane, 2), odd = keep_one(mine[1], mine[3], lane, 2);
    const float of_before = keep_one(even, odd, lane, 1);
    of_h = real ? of_before : of_h;  // a masked step passes the state on unchanged
    of_c = real ? of_new_c * f : of_c;
  }
  if (exists) {
    of_first_h[state_at] = of_h;
    of_first_c[state_at] = of_c;
  }
}
