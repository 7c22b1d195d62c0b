// The encoder's rotation and attention (model/cache.py): qkv [B, N, (H + 2 HK) D] of
// the N newest entries, as the product leaves them; bias [(H + 2 HK) D]; angles float
// [1 or B, N, R, 1, D], cos and sin of each pair, of which the first of R is the
// queries' and keys'; ring [B, 2 HK, C, D] of the entries before, keys' heads first;
// meta int32 [B, 3], a stream's {end, held, window} without the newest; scale [1]
// -> out [B, N, H, D], and the rows [B, 2 HK, N, D] that the ring has to store.
//
// A threadgroup has one head, one stream and QT queries; its SIMDGROUPS share out the
// entries. LANES lanes read a row, so a simdgroup reads KEYS of them at once, each once
// for all QT queries. An entry's age is how many came after it: what a query may see
// follows from that, and the order of slots does not matter. The newest are rotated
// where they are needed: once by every head's threadgroup.
//
// Buys launches: one instead of four (rotate, order heads twice, attend), 32 * 3 of a
// step. And bytes from the cache: keys and values once instead of once per query (4 x
// 6.2 MB a layer at 750 frames), and no mask array.
constexpr int E = 8;
constexpr int LANES = D / E;
constexpr int KEYS = 32 / LANES;
constexpr int HEADS = H + 2 * HK;
const int N = qkv_shape[1];
const int C = ring_shape[2];
const int head = int(threadgroup_position_in_grid.x);
const int n_tiles = (N + QT - 1) / QT;
const int stream = int(threadgroup_position_in_grid.y) / n_tiles;
const int first_query = int(threadgroup_position_in_grid.y) % n_tiles * QT;
const int simdgroup = int(simdgroup_index_in_threadgroup);
const int lane = int(thread_index_in_simdgroup);
const int part = lane % LANES;
const int group = lane / LANES;
const int end = meta[3 * stream];
const int held = meta[3 * stream + 1];
const int window = meta[3 * stream + 2];
const int kv_head = head / (H / HK);
const int first_row = stream * N;
const int first_angle = angles_shape[0] == 1 ? 0 : first_row;
const int angle_stride = angles_shape[2] * D;
const int ring_keys = (stream * 2 * HK + kv_head) * C;
const int ring_values = ring_keys + HK * C;
const int key_bias = (H + kv_head) * D;
const int value_bias = key_bias + HK * D;

threadgroup float outs[SIMDGROUPS][QT][D];
threadgroup float maxima[SIMDGROUPS][QT];
threadgroup float sums[SIMDGROUPS][QT];

float q[QT][E];
float o[QT][E];
float m[QT];
float l[QT];
for (int t = 0; t < QT; t++) {
  const int query = metal::min(first_query + t, N - 1);
  const int from = ((first_row + query) * HEADS + head) * D + part * E;
  const int angle = (first_angle + query) * angle_stride + part * E;
  const int b = head * D + part * E;
  for (int e = 0; e < E; e += 2) {
    const float x = static_cast<float>(qkv[from + e]) + static_cast<float>(bias[b + e]);
    const float y =
        static_cast<float>(qkv[from + e + 1]) + static_cast<float>(bias[b + e + 1]);
    const float c = angles[angle + e];
    const float s = angles[angle + e + 1];
    // Rounded as often as by separate operations.
    q[t][e] = scale[0] * static_cast<float>(static_cast<T>(x * c - y * s));
    q[t][e + 1] = scale[0] * static_cast<float>(static_cast<T>(y * c + x * s));
    o[t][e] = 0.0f;
    o[t][e + 1] = 0.0f;
  }
  m[t] = -INFINITY;
  l[t] = 0.0f;
}
for (int start = simdgroup * KEYS; start < held + N; start += SIMDGROUPS * KEYS) {
  const int entry = start + group;
  const bool is_there = entry < held + N;
  float k[E];
  float v[E];
  int age;
  if (entry < held) {
    age = end - 1 - entry;
    age = (age < 0 ? age + C : age) + N;
    const int at = entry * D + part * E;
    for (int e = 0; e < E; e++) {
      k[e] = static_cast<float>(ring[ring_keys * D + at + e]);
      v[e] = static_cast<float>(ring[ring_values * D + at + e]);
    }
  } else {
    const int newest = metal::min(entry - held, N - 1);
    age = N - 1 - newest;
    const int from = (first_row + newest) * HEADS * D + part * E;
    const int angle = (first_angle + newest) * angle_stride + part * E;
    for (int e = 0; e < E; e += 2) {
      const int i = key_bias + e;
      const int b = i + part * E;
      const float x = static_cast<float>(qkv[from + i]) + static_cast<float>(bias[b]);
      const float y =
          static_cast<float>(qkv[from + i + 1]) + static_cast<float>(bias[b + 1]);
      const float c = angles[angle + e];
      const float s = angles[angle + e + 1];
      k[e] = static_cast<float>(static_cast<T>(x * c - y * s));
      k[e + 1] = static_cast<float>(static_cast<T>(y * c + x * s));
    }
    for (int e = 0; e < E; e++) {
      const int i = value_bias + e;
      v[e] = static_cast<float>(static_cast<T>(
          static_cast<float>(qkv[from + i]) + static_cast<float>(bias[i + part * E])));
    }
    // One of the threadgroups that rotate an entry stores it.
    if (is_there && first_query == 0 && head % (H / HK) == 0) {
      const int key_row = (stream * 2 * HK + kv_head) * N + newest;
      const int value_row = key_row + HK * N;
      for (int e = 0; e < E; e++) {
        rows[key_row * D + part * E + e] = static_cast<T>(k[e]);
        rows[value_row * D + part * E + e] = static_cast<T>(v[e]);
      }
    }
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
    out[((first_row + first_query + t) * H + head) * D + i % D] =
        static_cast<T>(sum / total);
  }
}
