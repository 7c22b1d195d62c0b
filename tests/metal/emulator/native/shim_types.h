// Types: keywords, scalars, vectors, traits and limits.
#pragma once
#define __METAL__ 1
#ifndef __METAL_VERSION__
#define __METAL_VERSION__ 310
#endif
#define __HAVE_BFLOAT__ 1
#define METAL_FUNC inline __attribute__((always_inline))
#define kernel
#if MSL_LINT
#define device __attribute__((address_space(1)))
#define constant __attribute__((address_space(2))) const
#define threadgroup __attribute__((address_space(3)))
#define MSL_THREADGROUP(id, type, name, dims) static threadgroup type name dims
#else
#define device
#define constant
#define threadgroup
template <int ID, size_t N>
struct msl_tg_reg {
  static int r;
};
template <int ID, size_t N>
int msl_tg_reg<ID, N>::r = (msl_tg_sizes[ID] = N, 0);
#define MSL_THREADGROUP(id, type, name, dims)    \
  typedef type msl_tgt_##id dims;                \
  (void)msl_tg_reg<id, sizeof(msl_tgt_##id)>::r; \
  msl_tgt_##id& name = *(msl_tgt_##id*)msl_tg_alloc(id, sizeof(msl_tgt_##id))
#endif
#define thread

typedef unsigned char uchar;
typedef unsigned short ushort;
typedef unsigned int uint;
typedef unsigned long ulong;
typedef _Float16 half;
typedef __bf16 bfloat;
typedef long ptrdiff_t_;

#define MSL_V(T)                                      \
  typedef T T##2 __attribute__((ext_vector_type(2))); \
  typedef T T##3 __attribute__((ext_vector_type(3))); \
  typedef T T##4 __attribute__((ext_vector_type(4)));
// clang-format off
MSL_V(char) MSL_V(uchar) MSL_V(short) MSL_V(ushort) MSL_V(int) MSL_V(uint)
MSL_V(long) MSL_V(ulong) MSL_V(float) MSL_V(half) MSL_V(bfloat)
    // clang-format on
    typedef bool bool2 __attribute__((ext_vector_type(2)));
typedef bool bool4 __attribute__((ext_vector_type(4)));

namespace metal {
template <bool B, class T = void>
struct enable_if {};
template <class T>
struct enable_if<true, T> {
  typedef T type;
};
template <bool B, class T = void>
using enable_if_t = typename enable_if<B, T>::type;
template <class A, class B>
struct is_same {
  static constexpr bool value = false;
};
template <class A>
struct is_same<A, A> {
  static constexpr bool value = true;
};
template <class A, class B>
inline constexpr bool is_same_v = is_same<A, B>::value;
template <bool B, class T, class U>
struct conditional {
  typedef T type;
};
template <class T, class U>
struct conditional<false, T, U> {
  typedef U type;
};
template <bool B, class T, class U>
using conditional_t = typename conditional<B, T, U>::type;
template <class A, class B>
inline constexpr bool is_convertible_v = __is_convertible(A, B);
template <class A, class B>
struct is_convertible {
  static constexpr bool value = __is_convertible(A, B);
};
template <class T>
struct remove_cv {
  typedef __remove_cv(T) type;
};
template <class T>
using remove_cv_t = __remove_cv(T);
template <class T>
using remove_addrspace_t = __remove_cv(T);
template <class T>
struct remove_reference {
  typedef __remove_reference_t(T) type;
};
template <class T>
using remove_reference_t = __remove_reference_t(T);
template <class T>
struct is_integral {
  static constexpr bool value = __is_integral(T);
};
template <class T>
inline constexpr bool is_integral_v = __is_integral(T);
template <class T>
inline constexpr bool is_unsigned_v = __is_unsigned(T);
template <class T>
inline constexpr bool is_floating_point_v =
    is_same_v<T, float> || is_same_v<T, half> || is_same_v<T, bfloat>;
template <class T>
struct is_floating_point {
  static constexpr bool value = is_floating_point_v<T>;
};
struct true_type {
  static constexpr bool value = true;
};
struct false_type {
  static constexpr bool value = false;
};
template <class T, T v>
struct integral_constant {
  static constexpr T value = v;
  typedef T value_type;
  typedef integral_constant type;
  constexpr operator T() const { return v; }
};
template <bool v>
using bool_constant = integral_constant<bool, v>;

template <class T, int N>
using vec = T __attribute__((ext_vector_type(N)));
template <class V>
struct msl_elem {
  typedef V type;
  static constexpr int n = 1;
};
#define MSL_E(T)                \
  template <>                   \
  struct msl_elem<T##2> {       \
    typedef T type;             \
    static constexpr int n = 2; \
  };                            \
  template <>                   \
  struct msl_elem<T##3> {       \
    typedef T type;             \
    static constexpr int n = 3; \
  };                            \
  template <>                   \
  struct msl_elem<T##4> {       \
    typedef T type;             \
    static constexpr int n = 4; \
  };
MSL_E(char)
MSL_E(uchar)
MSL_E(short) MSL_E(ushort) MSL_E(int) MSL_E(uint) MSL_E(long) MSL_E(ulong) MSL_E(float)
    MSL_E(half) MSL_E(bfloat)
#undef MSL_E

    // vector construction: float4(a), float4(half4), float4(a,b,c,d), float4(v2,a,b)
    template <class V, class A>
    METAL_FUNC V msl_mk(A a) {
  typedef typename msl_elem<V>::type E;
  if constexpr (msl_elem<A>::n == 1) {
    V r;
    for (int i = 0; i < msl_elem<V>::n; i++) r[i] = (E)a;
    return r;
  } else {
    static_assert(msl_elem<A>::n == msl_elem<V>::n, "vector size");
    V r;
    for (int i = 0; i < msl_elem<V>::n; i++) r[i] = (E)a[i];
    return r;
  }
}
template <class V>
METAL_FUNC void msl_put(V&, int&) {}
template <class V, class A, class... R>
METAL_FUNC void msl_put(V& r, int& k, A a, R... rest) {
  typedef typename msl_elem<V>::type E;
  if constexpr (msl_elem<A>::n == 1)
    r[k++] = (E)a;
  else
    for (int i = 0; i < msl_elem<A>::n; i++) r[k++] = (E)a[i];
  msl_put(r, k, rest...);
}
template <class V, class A, class B, class... R>
METAL_FUNC V msl_mk(A a, B b, R... rest) {
  V r;
  int k = 0;
  msl_put(r, k, a, b, rest...);
  return r;
}
template <class V>
METAL_FUNC V msl_mk() {
  return V{};
}
template <class T, class U>
METAL_FUNC T as_type(U u) {
  static_assert(sizeof(T) == sizeof(U), "as_type size");
  return __builtin_bit_cast(T, u);
}

// Limits.
template <class T>
struct numeric_limits {
  static constexpr T max() {
    return __is_unsigned(T)
               ? (T) ~(T)0
               : (T)(((T)1 << (sizeof(T) * 8 - 2)) - 1 + ((T)1 << (sizeof(T) * 8 - 2)));
  }
  static constexpr T min() { return __is_unsigned(T) ? (T)0 : (T)(-max() - 1); }
  static constexpr T lowest() { return min(); }
};
template <>
struct numeric_limits<float> {
  static constexpr float max() { return 3.402823466e+38f; }
  static constexpr float min() { return 1.175494351e-38f; }
  static constexpr float lowest() { return -max(); }
  static constexpr float infinity() { return __builtin_inff(); }
  static constexpr float quiet_NaN() { return __builtin_nanf(""); }
  static constexpr float epsilon() { return 1.1920929e-7f; }
};
template <>
struct numeric_limits<half> {
  static constexpr half max() { return (half)65504.0f; }
  static constexpr half min() { return (half)6.103515625e-05f; }
  static constexpr half lowest() { return -max(); }
  static constexpr half infinity() { return (half)__builtin_inff(); }
  static constexpr half quiet_NaN() { return (half)__builtin_nanf(""); }
  static constexpr half epsilon() { return (half)0.000976562f; }
};
template <>
struct numeric_limits<bfloat> {
  static constexpr bfloat max() { return (bfloat)3.38953139e38f; }
  static constexpr bfloat min() { return (bfloat)1.17549435e-38f; }
  static constexpr bfloat lowest() { return -max(); }
  static constexpr bfloat infinity() { return (bfloat)__builtin_inff(); }
  static constexpr bfloat quiet_NaN() { return (bfloat)__builtin_nanf(""); }
  static constexpr bfloat epsilon() { return (bfloat)0.0078125f; }
};

}  // namespace metal
