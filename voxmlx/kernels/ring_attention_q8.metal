// The decoder's attention over an 8-bit ring (model/cache.py): first of two launches.
// queries [B, G HK, N, D]; rows int8 [B, 2 HK, C, D + 4], see quantize_rows.metal;
// meta int32 [B, 3], a stream's {end, held, window}; scale [1].
//
// A threadgroup has one kv head, one of BLOCKS parts of the ring, one stream and QT
// queries; a simdgroup has one of the G heads that share the kv head. LANES lanes
// read a row, so a simdgroup reads KEYS of them at once and its lanes agree on a score
// in log2(LANES) shuffles. A slot's age is how many entries were written after it; the
// N queries belong to the N newest entries. The order of slots does not matter.
//
// Buys bytes: (D + 4) / 2 D = 0.516 of a 16-bit ring's, of which 872 MB a step are read
// at 8192 positions: 3565 -> 3143 MB a step in all, -12 %. Stock attention cannot read
// 8 bits, and rows of different length would need a mask array and a padded batch.
constexpr int E = 8;
constexpr int LANES = D / E;
constexpr int KEYS = 32 / LANES;
constexpr int ROW = D + 4;
const int N = queries_shape[2];
const int C = rows_shape[2];
const uint n_kv_heads = threadgroups_per_grid.x;
const uint kv_head = threadgroup_position_in_grid.x;
const uint block = threadgroup_position_in_grid.y;
const uint n_tiles = (uint(N) + QT - 1) / QT;
const uint stream = threadgroup_position_in_grid.z / n_tiles;
const int first_query = int(threadgroup_position_in_grid.z % n_tiles) * QT;
const uint head = kv_head * G + simdgroup_index_in_threadgroup;
const uint lane = thread_index_in_simdgroup;
const uint part = lane % LANES;
const int group = int(lane / LANES);
const int end = meta[3 * stream];
const int held = meta[3 * stream + 1];
const int window = meta[3 * stream + 2];
const int per_block = (held + BLOCKS - 1) / BLOCKS;
const int first = metal::min(int(block) * per_block, held);
const int last = metal::min(first + per_block, held);
const uint query_row = (stream * n_kv_heads * G + head) * uint(N);

// A lane has the numbers 4 (part + LANES j) + 0 .. 3 of a row, for j of E / 4.
float q[QT][E];
float o[QT][E];
float m[QT];
float l[QT];
for (int t = 0; t < QT; t++) {
  const int query = metal::min(first_query + t, N - 1);
  for (int e = 0; e < E; e++) {
    const int d = 4 * (int(part) + LANES * (e / 4)) + e % 4;
    q[t][e] = scale[0] * static_cast<float>(queries[(query_row + query) * D + d]);
    o[t][e] = 0.0f;
  }
  m[t] = -INFINITY;
  l[t] = 0.0f;
}
const uint keys = (stream * 2 * n_kv_heads + kv_head) * uint(C);
const uint values = keys + n_kv_heads * uint(C);
for (int start = first; start < last; start += KEYS) {
  const int slot = start + group;
  const bool is_there = slot < last;
  const uint at = uint(is_there ? slot : first);
  int age = end - 1 - slot;
  age = age < 0 ? age + C : age;
  const device int8_t* key = rows + (keys + at) * ROW;
  const float key_scale = *(const device float*)(key + D);
  float k[E];
  for (int j = 0; j < E / 4; j++) {
    const char4 four = *(const device char4*)(key + 4 * (part + LANES * j));
    k[4 * j] = float(four.x);
    k[4 * j + 1] = float(four.y);
    k[4 * j + 2] = float(four.z);
    k[4 * j + 3] = float(four.w);
  }
  const device int8_t* value = rows + (values + at) * ROW;
  const float value_scale = *(const device float*)(value + D);
  float v[E];
  for (int j = 0; j < E / 4; j++) {
    const char4 four = *(const device char4*)(value + 4 * (part + LANES * j));
    v[4 * j] = float(four.x);
    v[4 * j + 1] = float(four.y);
    v[4 * j + 2] = float(four.z);
    v[4 * j + 3] = float(four.w);
  }
  for (int t = 0; t < QT; t++) {
    float score = 0.0f;
    for (int e = 0; e < E; e++) {
      score += q[t][e] * k[e];
    }
    for (int step = 1; step < LANES; step *= 2) {
      score += simd_shuffle_xor(score, ushort(step));
    }
    score *= key_scale;
    const int distance = age - (N - 1 - first_query - t);
    if (is_there && distance >= 0 && distance < window) {
      const float top = metal::max(m[t], score);
      const float fade = fast::exp(m[t] - top);
      const float weight = fast::exp(score - top);
      m[t] = top;
      l[t] = l[t] * fade + weight;
      for (int e = 0; e < E; e++) {
        o[t][e] = o[t][e] * fade + weight * value_scale * v[e];
      }
    }
  }
}
for (int t = 0; t < QT; t++) {
  for (int step = LANES; step < 32; step *= 2) {
    const float other_m = simd_shuffle_xor(m[t], ushort(step));
    const float other_l = simd_shuffle_xor(l[t], ushort(step));
    const float top = metal::max(m[t], other_m);
    const float fade = m[t] == top ? 1.0f : fast::exp(m[t] - top);
    const float other_fade = other_m == top ? 1.0f : fast::exp(other_m - top);
    m[t] = top;
    l[t] = l[t] * fade + other_l * other_fade;
    for (int e = 0; e < E; e++) {
      o[t][e] = o[t][e] * fade + simd_shuffle_xor(o[t][e], ushort(step)) * other_fade;
    }
  }
  if (group == 0 && first_query + t < N) {
    const uint to = (query_row + uint(first_query + t)) * BLOCKS + block;
    for (int e = 0; e < E; e++) {
      outs[to * D + 4 * (part + LANES * (e / 4)) + e % 4] = o[t][e];
    }
    if (part == 0) {
      maxima[to] = m[t];
      sums[to] = l[t];
    }
  }
}
