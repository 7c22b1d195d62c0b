// Both borders of every layer (model/layer.py): h = x + bias + residual,
// y = rms_norm(h). x, residual, h, y [B, N, D]; bias [D]; weight [1 or B, D] (ROWS: B); eps [1].
// One threadgroup per row, each thread keeps D / 256 numbers of it in registers.
//
// Buys launches: one instead of two per border, 2 * (26 + 32) = 116 of a step; and the
// sum is not read back for the norm, D * 2 bytes per row.
constexpr int THREADS = 256;
constexpr int PER_THREAD = (D + THREADS - 1) / THREADS;
const uint row = threadgroup_position_in_grid.x;
const uint tid = thread_index_in_threadgroup;
threadgroup float partial[THREADS / 32];

const size_t first = size_t(row) * D;
float held[PER_THREAD];
float sum = 0.0f;
for (int n = 0; n < PER_THREAD; n++) {
  const int i = int(tid) + n * THREADS;
  held[n] = 0.0f;
  if (i < D) {
    // Rounded as often as by separate operations: the same y.
    const T biased = static_cast<T>(
        static_cast<float>(x[first + i]) + static_cast<float>(bias[i]));
    const T rounded = static_cast<T>(
        static_cast<float>(biased) + static_cast<float>(residual[first + i]));
    h[first + i] = rounded;
    held[n] = static_cast<float>(rounded);
    sum += held[n] * held[n];
  }
}
sum = simd_sum(sum);
if (thread_index_in_simdgroup == 0) {
  partial[simdgroup_index_in_threadgroup] = sum;
}
threadgroup_barrier(mem_flags::mem_threadgroup);
sum = thread_index_in_simdgroup < THREADS / 32 ? partial[thread_index_in_simdgroup] : 0.0f;
sum = simd_sum(sum);

const float inverse = metal::precise::rsqrt(sum / float(D) + eps[0]);
const uint stream = ROWS ? row / uint(x_shape[1]) : 0u;
const size_t weights = size_t(stream) * D;
for (int n = 0; n < PER_THREAD; n++) {
  const int i = int(tid) + n * THREADS;
  if (i < D) {
    const T normal = static_cast<T>(held[n] * inverse);
    y[first + i] = static_cast<T>(
        static_cast<float>(normal) * static_cast<float>(weight[weights + i]));
  }
}
