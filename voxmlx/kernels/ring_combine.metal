// Second launch of ring_attention_q8: outs float [B, H, N, BLOCKS, D], maxima and sums
// float [B, H, N, BLOCKS] of the parts of a ring -> out [B, H, N, D]. A thread per
// number of `out`; what it reads, the first launch has just written.
const uint i = thread_position_in_grid.x;
const size_t first = size_t(i / D) * BLOCKS;
float top = -INFINITY;
for (int b = 0; b < BLOCKS; b++) {
  top = metal::max(top, maxima[first + b]);
}
float sum = 0.0f;
float total = 0.0f;
for (int b = 0; b < BLOCKS; b++) {
  // A part that no query may see has the maximum -infinity, and the weight 0.
  const float weight = fast::exp(maxima[first + b] - top);
  total += weight * sums[first + b];
  sum += weight * outs[(first + b) * D + i % D];
}
out[i] = static_cast<T>(sum / total);
