// Arithmetic: in float, rounded to half or bfloat where they go in and out.
#pragma once
namespace metal {
#define MSL_UN(name, expr)                                                       \
  METAL_FUNC float name(float x) { return expr; }                                \
  METAL_FUNC half name(half h) {                                                 \
    float x = (float)h;                                                          \
    return (half)(expr);                                                         \
  }                                                                              \
  METAL_FUNC bfloat name(bfloat h) {                                             \
    float x = (float)h;                                                          \
    return (bfloat)(expr);                                                       \
  }                                                                              \
  template <class V, class E = typename msl_elem<V>::type,                       \
            class = enable_if_t<(msl_elem<V>::n > 1) && is_floating_point_v<E>>> \
  METAL_FUNC V name(V v) {                                                       \
    V r;                                                                         \
    for (int i = 0; i < msl_elem<V>::n; i++) r[i] = name((E)v[i]);               \
    return r;                                                                    \
  }
#define MSL_BIN(name, expr)                                                      \
  METAL_FUNC float name(float x, float y) { return expr; }                       \
  METAL_FUNC half name(half a, half b) {                                         \
    float x = (float)a, y = (float)b;                                            \
    return (half)(expr);                                                         \
  }                                                                              \
  METAL_FUNC bfloat name(bfloat a, bfloat b) {                                   \
    float x = (float)a, y = (float)b;                                            \
    return (bfloat)(expr);                                                       \
  }                                                                              \
  template <class V, class E = typename msl_elem<V>::type,                       \
            class = enable_if_t<(msl_elem<V>::n > 1) && is_floating_point_v<E>>> \
  METAL_FUNC V name(V a, V b) {                                                  \
    V r;                                                                         \
    for (int i = 0; i < msl_elem<V>::n; i++) r[i] = name((E)a[i], (E)b[i]);      \
    return r;                                                                    \
  }
#define MSL_MATH                                                                       \
  MSL_UN(exp, __builtin_expf(x))                                                       \
  MSL_UN(exp2, __builtin_exp2f(x))                                                     \
  MSL_UN(exp10, __builtin_powf(10.0f, x)) MSL_UN(log, __builtin_logf(x)) MSL_UN(       \
      log2, __builtin_log2f(x)) MSL_UN(log10,                                          \
                                       __builtin_log10f(x)) MSL_UN(sqrt,               \
                                                                   __builtin_sqrtf(x)) \
      MSL_UN(rsqrt, 1.0f / __builtin_sqrtf(x)) MSL_UN(sin, __builtin_sinf(x)) MSL_UN(  \
          cos, __builtin_cosf(x)) MSL_UN(tan, __builtin_tanf(x))                       \
          MSL_UN(asin, __builtin_asinf(x)) MSL_UN(acos, __builtin_acosf(x)) MSL_UN(    \
              atan, __builtin_atanf(x)) MSL_UN(sinh, __builtin_sinhf(x))               \
              MSL_UN(cosh, __builtin_coshf(x)) MSL_UN(tanh, __builtin_tanhf(x))        \
                  MSL_UN(asinh, __builtin_asinhf(x)) MSL_UN(                           \
                      acosh, __builtin_acoshf(x)) MSL_UN(atanh, __builtin_atanhf(x))   \
                      MSL_UN(floor, __builtin_floorf(x)) MSL_UN(                       \
                          ceil, __builtin_ceilf(x)) MSL_UN(trunc, __builtin_truncf(x)) \
                          MSL_UN(round, __builtin_roundf(x)) MSL_UN(                   \
                              rint, __builtin_rintf(                                   \
                                        x)) MSL_UN(fract, x - __builtin_floorf(x))     \
                              MSL_UN(fabs, __builtin_fabsf(x)) MSL_UN(                 \
                                  saturate,                                            \
                                  x < 0.0f   ? 0.0f                                    \
                                  : x > 1.0f ? 1.0f                                    \
                                             : x)                                      \
                                  MSL_UN(sign,                                         \
                                         x > 0 ? 1.0f                                  \
                                         : x < 0                                       \
                                             ? -1.0f                                   \
                                             : x) MSL_BIN(pow, __builtin_powf(x, y))   \
                                      MSL_BIN(powr, __builtin_powf(x, y)) MSL_BIN(     \
                                          atan2, __builtin_atan2f(x, y))               \
                                          MSL_BIN(fmod, __builtin_fmodf(x, y))         \
                                              MSL_BIN(fmin, __builtin_fminf(x, y))     \
                                                  MSL_BIN(fmax, __builtin_fmaxf(x, y)) \
                                                      MSL_BIN(                         \
                                                          copysign,                    \
                                                          __builtin_copysignf(x, y))   \
                                                          MSL_BIN(divide, x / y)       \
                                                              MSL_BIN(                 \
                                                                  ldexp_,              \
                                                                  __builtin_ldexpf(    \
                                                                      x, (int)y))
MSL_MATH
namespace fast {
MSL_MATH
}
namespace precise {
MSL_MATH
}

template <class T>
METAL_FUNC constexpr T min(T a, T b) {
  return b < a ? b : a;
}
template <class T>
METAL_FUNC constexpr T max(T a, T b) {
  return a < b ? b : a;
}
METAL_FUNC float min(float a, float b) { return __builtin_fminf(a, b); }
METAL_FUNC float max(float a, float b) { return __builtin_fmaxf(a, b); }
template <class T>
METAL_FUNC T min3(T a, T b, T c) {
  return min(a, min(b, c));
}
template <class T>
METAL_FUNC T max3(T a, T b, T c) {
  return max(a, max(b, c));
}
METAL_FUNC float abs(float x) { return __builtin_fabsf(x); }
METAL_FUNC half abs(half x) { return x < (half)0 ? -x : x; }
METAL_FUNC bfloat abs(bfloat x) { return x < (bfloat)0 ? -x : x; }
METAL_FUNC int abs(int x) { return x < 0 ? -x : x; }
METAL_FUNC long abs(long x) { return x < 0 ? -x : x; }
METAL_FUNC float fma(float a, float b, float c) { return __builtin_fmaf(a, b, c); }
METAL_FUNC half fma(half a, half b, half c) {
  return (half)__builtin_fmaf((float)a, (float)b, (float)c);
}
METAL_FUNC float4 fma(float4 a, float4 b, float4 c) {
  return __builtin_elementwise_fma(a, b, c);
}
METAL_FUNC float ldexp(float x, int e) { return __builtin_ldexpf(x, e); }
template <class T>
METAL_FUNC T clamp(T x, T lo, T hi) {
  return min(max(x, lo), hi);
}
template <class T>
METAL_FUNC T mix(T a, T b, T t) {
  return a + (b - a) * t;
}
template <class T>
METAL_FUNC T select(T a, T b, bool c) {
  return c ? b : a;
}
METAL_FUNC bool isnan(float x) { return __builtin_isnan(x); }
METAL_FUNC bool isinf(float x) { return __builtin_isinf(x); }
METAL_FUNC bool isfinite(float x) { return __builtin_isfinite(x); }
template <class V>
METAL_FUNC auto dot(V a, V b) {
  typename msl_elem<V>::type s = 0;
  for (int i = 0; i < msl_elem<V>::n; i++) s += a[i] * b[i];
  return s;
}
template <class V>
METAL_FUNC auto length(V a) {
  return sqrt(dot(a, a));
}
template <class T>
METAL_FUNC T popcount(T x) {
  return (T)__builtin_popcountll((unsigned long long)x &
                                 (~0ull >> (64 - 8 * sizeof(T))));
}
template <class T>
METAL_FUNC T clz(T x) {
  return x ? (T)(__builtin_clzll((unsigned long long)x) - (64 - 8 * sizeof(T)))
           : (T)(8 * sizeof(T));
}
template <class T>
METAL_FUNC T ctz(T x) {
  return x ? (T)__builtin_ctzll((unsigned long long)x) : (T)(8 * sizeof(T));
}
METAL_FUNC uint mulhi(uint a, uint b) { return (uint)(((ulong)a * b) >> 32); }
METAL_FUNC uint extract_bits(uint v, uint o, uint n) {
  return (v >> o) & (n >= 32 ? ~0u : (1u << n) - 1);
}

}  // namespace metal
