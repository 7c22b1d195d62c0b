// The encoder's attention over its ring (model/cache.py): queries [B, H, N, D] of the N
// newest entries; keys, values [B, H / G, C, D]; meta int32 [B, 3], a stream's
// {end, held, window}; scale [1] -> out [B, H, N, D].
//
// A threadgroup has one head, one stream and QT queries; its SIMDGROUPS share out the
// ring. LANES lanes read a row, so a simdgroup reads KEYS of them at once, each once for
// all QT queries. A slot's age is how many entries were written after it: what a query
// may see follows from that, and the order of slots does not matter.
//
// Buys bytes from the cache: keys and values once instead of once per query (4 x 6.2 MB
// a layer at 750 frames), and no mask array. Launches stay: one.
constexpr int E = 8;
constexpr int LANES = D / E;
constexpr int KEYS = 32 / LANES;
const int N = queries_shape[2];
const int C = keys_shape[2];
const uint head = threadgroup_position_in_grid.x;
const uint n_tiles = (uint(N) + QT - 1) / QT;
const uint stream = threadgroup_position_in_grid.y / n_tiles;
const int first_query = int(threadgroup_position_in_grid.y % n_tiles) * QT;
const int simdgroup = int(simdgroup_index_in_threadgroup);
const uint lane = thread_index_in_simdgroup;
const uint part = lane % LANES;
const int group = int(lane / LANES);
const int end = meta[3 * stream];
const int held = meta[3 * stream + 1];
const int window = meta[3 * stream + 2];
const uint n_heads = queries_shape[1];
const size_t query_row = (size_t(stream) * n_heads + head) * N;
const size_t first_key = (size_t(stream) * n_heads + head) / G * C;

threadgroup float outs[SIMDGROUPS][QT][D];
threadgroup float maxima[SIMDGROUPS][QT];
threadgroup float sums[SIMDGROUPS][QT];

float q[QT][E];
float o[QT][E];
float m[QT];
float l[QT];
for (int t = 0; t < QT; t++) {
  const int query = metal::min(first_query + t, N - 1);
  for (int e = 0; e < E; e++) {
    q[t][e] = scale[0] *
        static_cast<float>(queries[(query_row + query) * D + part * E + e]);
    o[t][e] = 0.0f;
  }
  m[t] = -INFINITY;
  l[t] = 0.0f;
}
for (int start = simdgroup * KEYS; start < held; start += SIMDGROUPS * KEYS) {
  const int slot = start + group;
  const bool is_there = slot < held;
  const size_t at = (first_key + (is_there ? slot : start)) * D + part * E;
  int age = end - 1 - slot;
  age = age < 0 ? age + C : age;
  float k[E];
  float v[E];
  for (int e = 0; e < E; e++) {
    k[e] = static_cast<float>(keys[at + e]);
    v[e] = static_cast<float>(values[at + e]);
  }
  for (int t = 0; t < QT; t++) {
    float score = 0.0f;
    for (int e = 0; e < E; e++) {
      score += q[t][e] * k[e];
    }
    for (int step = 1; step < LANES; step *= 2) {
      score += simd_shuffle_xor(score, ushort(step));
    }
    const int distance = age - (N - 1 - first_query - t);
    if (is_there && distance >= 0 && distance < window) {
      const float top = metal::max(m[t], score);
      const float fade = fast::exp(m[t] - top);
      const float weight = fast::exp(score - top);
      m[t] = top;
      l[t] = l[t] * fade + weight;
      for (int e = 0; e < E; e++) {
        o[t][e] = o[t][e] * fade + weight * v[e];
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
  if (group == 0) {
    for (int e = 0; e < E; e++) {
      outs[simdgroup][t][part * E + e] = o[t][e];
    }
    if (part == 0) {
      maxima[simdgroup][t] = m[t];
      sums[simdgroup][t] = l[t];
    }
  }
}
threadgroup_barrier(mem_flags::mem_threadgroup);
for (int i = int(thread_index_in_threadgroup); i < QT * D; i += 32 * SIMDGROUPS) {
  const int t = i / D;
  if (first_query + t < N) {
    float top = -INFINITY;
    for (int s = 0; s < SIMDGROUPS; s++) {
      top = metal::max(top, maxima[s][t]);
    }
    float sum = 0.0f;
    float total = 0.0f;
    for (int s = 0; s < SIMDGROUPS; s++) {
      // A simdgroup that saw nothing has the maximum -infinity, and the weight 0.
      const float weight = fast::exp(maxima[s][t] - top);
      total += weight * sums[s][t];
      sum += weight * outs[s][t][i % D];
    }
    out[(query_row + first_query + t) * D + i % D] = static_cast<T>(sum / total);
  }
}
