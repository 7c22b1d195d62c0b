// An 8-bit ring's entries (model/cache.py): keys and values kv [B, 2 H, N, D] -> rows
// [B, 2 H, N, D + 4]; a row is D int8 and their scale, a float. One simdgroup per row.
//
// Buys launches: one instead of about six (abs, max, divide, round, convert,
// concatenate), 26 * 5 of a step. A row that carries its scale is stored by one
// slice_update: 8 bits cost no launch more.
const uint lane = thread_index_in_simdgroup;
const uint row = threadgroup_position_in_grid.y;
const size_t source = size_t(row) * D;

float x[(D + 31) / 32];
float largest = 0.0f;
for (int n = 0; n < (D + 31) / 32; n++) {
  const int i = int(lane) + 32 * n;
  x[n] = 0.0f;
  if (i < D) {
    x[n] = static_cast<float>(kv[source + i]);
  }
  largest = metal::max(largest, metal::fabs(x[n]));
}
largest = simd_max(largest);
const float scale = largest > 0.0f ? largest / 127.0f : 1.0f;
device int8_t* to = rows + size_t(row) * (D + 4);
for (int n = 0; n < (D + 31) / 32; n++) {
  const int i = int(lane) + 32 * n;
  if (i < D) {
    to[i] = static_cast<int8_t>(metal::rint(x[n] / scale));
  }
}
if (lane == 0) {
  *(device float*)(to + D) = scale;
}
