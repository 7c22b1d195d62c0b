// What the threads of a simdgroup or threadgroup do together.
#pragma once
namespace metal {
enum class mem_flags {
  mem_none = 0,
  mem_device = 1,
  mem_threadgroup = 2,
  mem_texture = 4,
  mem_threadgroup_imageblock = 8,
  mem_object_data = 16
};
METAL_FUNC constexpr mem_flags operator|(mem_flags a, mem_flags b) {
  return (mem_flags)((int)a | (int)b);
}
METAL_FUNC void threadgroup_barrier(mem_flags f, int site = __builtin_LINE()) {
  msl_barrier(site, 1 | (int)f << 8);
}
METAL_FUNC void simdgroup_barrier(mem_flags f, int site = __builtin_LINE()) {
  msl_barrier(site, (int)f << 8);
}
#ifndef MSL_NOSAN
#define MSL_NOSAN                                                         \
  __attribute__((noinline, no_sanitize("thread", "address", "undefined"), \
                 disable_sanitizer_instrumentation))
#endif
// put own value, wait for the simdgroup, hand back the slot set
template <class T>
MSL_NOSAN T* msl_xchg(T v, int site, msl_fin_fn fin, uint32_t* mask) {
  static_assert(sizeof(T) <= MSL_SLOT, "simd payload");
  msl_thread* t = msl_self;
  msl_simdgroup* g = t->sg;
  T* s = (T*)g->slots[g->gen & 1];
  s[t->lane] = v;
  uint32_t m = msl_rendezvous(site, fin);
  if (mask) *mask = m;
  return s;
}
template <class T>
MSL_NOSAN T msl_gather(T v, int site, int mode, uint arg, T fill, bool use_fill) {
  uint lane = msl_self->lane;
  uint32_t m;
  T* s = msl_xchg<T>(v, site, nullptr, &m);
  int src;
  switch (mode) {
    case 0:
      src = (int)arg;
      break;  // shuffle / broadcast
    case 1:
      src = (int)(lane ^ arg);
      break;  // xor
    case 2:
      src = (int)lane - (int)arg;
      if (src < 0) return use_fill ? fill : v;
      break;  // up
    case 3:
      src = (int)lane + (int)arg;
      if (src > 31) return use_fill ? fill : v;
      break;  // down
    case 4:
      src = (int)((lane + 32 - arg % 32) % 32);
      break;  // rotate up
    case 5:
      src = (int)((lane + arg) % 32);
      break;  // rotate down
    default:
      src = (int)lane;
  }
  if (src < 0 || src > 31) {
    msl_fail("simd_shuffle: lane out of range", site);
    return v;
  }
  if (!(m >> src & 1)) {
    msl_fail("simd_shuffle: reads an inactive lane", site);
    return v;
  }
  return s[src];
}
#define MSL_RED(name, init, body)                                   \
  template <class T>                                                \
  MSL_NOSAN void msl_fin_##name(void* p, uint32_t m) {              \
    T* s = (T*)p;                                                   \
    T acc = init;                                                   \
    bool first = true;                                              \
    (void)first;                                                    \
    /* pairwise tree, like a butterfly */                           \
    T tmp[32];                                                      \
    bool on[32];                                                    \
    for (int i = 0; i < 32; i++) {                                  \
      on[i] = m >> i & 1;                                           \
      if (on[i]) tmp[i] = s[i];                                     \
    }                                                               \
    for (int d = 1; d < 32; d *= 2)                                 \
      for (int i = 0; i + d < 32; i += 2 * d) {                     \
        if (on[i] && on[i + d]) {                                   \
          T a = tmp[i], b = tmp[i + d];                             \
          tmp[i] = body;                                            \
        } else if (on[i + d]) {                                     \
          tmp[i] = tmp[i + d];                                      \
          on[i] = true;                                             \
        }                                                           \
      }                                                             \
    acc = tmp[0];                                                   \
    for (int i = 0; i < 32; i++) s[i] = acc;                        \
  }                                                                 \
  template <class T>                                                \
  MSL_NOSAN T simd_##name(T v, int site = __builtin_LINE()) {       \
    uint lane = msl_self->lane;                                     \
    return msl_xchg<T>(v, site, &msl_fin_##name<T>, nullptr)[lane]; \
  }
MSL_RED(sum, (T)0, (T)(a + b))
MSL_RED(product, (T)1, (T)(a * b))
MSL_RED(max, s[0], (a < b ? b : a))
MSL_RED(min, s[0], (b < a ? b : a))
MSL_RED(and, s[0], (T)(a & b))
MSL_RED(or, s[0], (T)(a | b))
MSL_RED(xor, s[0], (T)(a ^ b))
template <class T>
MSL_NOSAN T msl_prefix(T v, int site, bool incl, bool prod) {
  uint lane = msl_self->lane;
  uint32_t m;
  T* s = msl_xchg<T>(v, site, nullptr, &m);
  T acc = prod ? (T)1 : (T)0;
  for (uint i = 0; i < lane + (incl ? 1 : 0); i++)
    if (m >> i & 1) acc = prod ? (T)(acc * s[i]) : (T)(acc + s[i]);
  return acc;
}
template <class T>
T simd_prefix_inclusive_sum(T v, int site = __builtin_LINE()) {
  return msl_prefix(v, site, true, false);
}
template <class T>
T simd_prefix_exclusive_sum(T v, int site = __builtin_LINE()) {
  return msl_prefix(v, site, false, false);
}
template <class T>
T simd_shuffle(T v, ushort l, int site = __builtin_LINE()) {
  return msl_gather<T>(v, site, 0, l, v, false);
}
template <class T>
T simd_broadcast(T v, ushort l, int site = __builtin_LINE()) {
  return msl_gather<T>(v, site, 0, l, v, false);
}
template <class T>
T simd_shuffle_xor(T v, ushort l, int site = __builtin_LINE()) {
  return msl_gather<T>(v, site, 1, l, v, false);
}
template <class T>
T simd_shuffle_up(T v, ushort l, int site = __builtin_LINE()) {
  return msl_gather<T>(v, site, 2, l, v, false);
}
template <class T>
T simd_shuffle_down(T v, ushort l, int site = __builtin_LINE()) {
  return msl_gather<T>(v, site, 3, l, v, false);
}
template <class T>
T simd_shuffle_rotate_up(T v, ushort l, int site = __builtin_LINE()) {
  return msl_gather<T>(v, site, 4, l, v, false);
}
template <class T>
T simd_shuffle_rotate_down(T v, ushort l, int site = __builtin_LINE()) {
  return msl_gather<T>(v, site, 5, l, v, false);
}
template <class T>
T simd_shuffle_and_fill_down(T v, T f, ushort l, int site = __builtin_LINE()) {
  return msl_gather<T>(v, site, 3, l, f, true);
}
template <class T>
T simd_shuffle_and_fill_up(T v, T f, ushort l, int site = __builtin_LINE()) {
  return msl_gather<T>(v, site, 2, l, f, true);
}
template <class T>
MSL_NOSAN T quad_sum(T v, int site = __builtin_LINE()) {
  uint q = msl_self->lane & ~3u;
  T* s = msl_xchg<T>(v, site, nullptr, nullptr);
  return (T)((s[q] + s[q + 1]) + (s[q + 2] + s[q + 3]));
}
template <class T>
MSL_NOSAN T quad_shuffle_xor(T v, ushort m, int site = __builtin_LINE()) {
  uint l = msl_self->lane ^ (m & 3u);
  return msl_xchg<T>(v, site, nullptr, nullptr)[l];
}
MSL_NOSAN inline bool simd_all(bool v, int site = __builtin_LINE()) {
  return simd_and<int>(v, site);
}
MSL_NOSAN inline bool simd_any(bool v, int site = __builtin_LINE()) {
  return simd_or<int>(v, site);
}
MSL_NOSAN inline bool simd_is_first(int site = __builtin_LINE()) {
  uint32_t m;
  msl_xchg<int>(0, site, nullptr, &m);
  return (uint)__builtin_ctz(m) == msl_self->lane;
}
MSL_NOSAN inline ulong simd_ballot_(bool v, int site = __builtin_LINE()) {
  uint32_t m;
  int* s = msl_xchg<int>(v, site, nullptr, &m);
  ulong r = 0;
  for (int i = 0; i < 32; i++)
    if ((m >> i & 1) && s[i]) r |= 1ul << i;
  return r;
}

}  // namespace metal
