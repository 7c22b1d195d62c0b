// Atomics, and 8x8 matrices spread over a simdgroup, two elements a lane.
#pragma once
namespace metal {
enum memory_order { memory_order_relaxed, memory_order_seq_cst };
template <class T>
struct _atomic {
  T v;
};
template <class T>
using atomic = _atomic<T>;
typedef _atomic<int> atomic_int;
typedef _atomic<uint> atomic_uint;
typedef _atomic<float> atomic_float;
template <class T, class U>
T msl_rmw(_atomic<T>* p, U x, int op) {
  T o, n;
  __atomic_load(&p->v, &o, __ATOMIC_RELAXED);
  do {
    T y = (T)x;
    n = op == 0   ? (T)(o + y)
        : op == 1 ? (y < o ? y : o)
        : op == 2 ? (o < y ? y : o)
                  : y;
  } while (!__atomic_compare_exchange(&p->v, &o, &n, false, __ATOMIC_RELAXED,
                                      __ATOMIC_RELAXED));
  return o;
}
template <class T, class U>
T atomic_fetch_add_explicit(_atomic<T>* p, U x, memory_order) {
  return msl_rmw(p, x, 0);
}
template <class T, class U>
T atomic_fetch_min_explicit(_atomic<T>* p, U x, memory_order) {
  return msl_rmw(p, x, 1);
}
template <class T, class U>
T atomic_fetch_max_explicit(_atomic<T>* p, U x, memory_order) {
  return msl_rmw(p, x, 2);
}
template <class T, class U>
T atomic_exchange_explicit(_atomic<T>* p, U x, memory_order) {
  return msl_rmw(p, x, 3);
}
template <class T>
T atomic_load_explicit(const _atomic<T>* p, memory_order) {
  T o;
  __atomic_load(const_cast<T*>(&p->v), &o, __ATOMIC_RELAXED);
  return o;
}
template <class T, class U>
void atomic_store_explicit(_atomic<T>* p, U x, memory_order) {
  T y = (T)x;
  __atomic_store(&p->v, &y, __ATOMIC_RELAXED);
}

METAL_FUNC void msl_frag_rc(uint lane, int& r, int& c) {
  uint q = lane / 4;
  r = (int)((q & 4) + ((lane / 2) % 4));
  c = (int)((q & 2) * 2 + (lane % 2) * 2);
}
template <class T, int R = 8, int C = 8>
struct simdgroup_matrix {
  static_assert(R == 8 && C == 8, "8x8 only");
  T e[2];
  simdgroup_matrix() {}
  explicit simdgroup_matrix(T diag) {
    int r, c;
    msl_frag_rc(msl_self->lane, r, c);
    e[0] = r == c ? diag : (T)0;
    e[1] = r == c + 1 ? diag : (T)0;
  }
  typedef T storage __attribute__((ext_vector_type(2)));
  storage& thread_elements() { return *(storage*)e; }
  const storage& thread_elements() const { return *(const storage*)e; }
};
template <class T, int R, int C>
METAL_FUNC simdgroup_matrix<T, R, C> make_filled_simdgroup_matrix(T v) {
  simdgroup_matrix<T, R, C> m;
  m.e[0] = m.e[1] = v;
  return m;
}
typedef simdgroup_matrix<float, 8, 8> simdgroup_float8x8;
typedef simdgroup_matrix<half, 8, 8> simdgroup_half8x8;
template <class T, class U>
void simdgroup_load(simdgroup_matrix<T, 8, 8>& d, const U* p, ulong ld = 8,
                    ulong2 o = 0, bool tr = false, int site = __builtin_LINE()) {
  int r, c;
  msl_frag_rc(msl_self->lane, r, c);
  msl_rendezvous(site, nullptr);
  for (int k = 0; k < 2; k++) {
    ulong y = (ulong)(tr ? c + k : r) + o.y, x = (ulong)(tr ? r : c + k) + o.x;
    d.e[k] = p[y * ld + x];
  }
}
template <class T, class U>
void simdgroup_store(simdgroup_matrix<T, 8, 8> d, U* p, ulong ld = 8, ulong2 o = 0,
                     bool tr = false, int site = __builtin_LINE()) {
  int r, c;
  msl_frag_rc(msl_self->lane, r, c);
  msl_rendezvous(site, nullptr);
  for (int k = 0; k < 2; k++) {
    ulong y = (ulong)(tr ? c + k : r) + o.y, x = (ulong)(tr ? r : c + k) + o.x;
    p[y * ld + x] = d.e[k];
  }
}
template <class A, class B>
struct msl_mma_in {
  A a[2];
  B b[2];
};
template <class D, class A, class B, class C>
MSL_NOSAN void simdgroup_multiply_accumulate(simdgroup_matrix<D, 8, 8>& d,
                                             simdgroup_matrix<A, 8, 8> a,
                                             simdgroup_matrix<B, 8, 8> b,
                                             simdgroup_matrix<C, 8, 8> cc,
                                             int site = __builtin_LINE()) {
  typedef msl_mma_in<A, B> P;
  P v{{a.e[0], a.e[1]}, {b.e[0], b.e[1]}};
  int r, c;
  msl_frag_rc(msl_self->lane, r, c);
  P* s = msl_xchg<P>(v, site, nullptr, nullptr);
  // lane owning (r,c): inverse of msl_frag_rc
  auto owner = [](int r, int c) {
    return (((r & 4) >> 2) * 16) | (((c & 4) >> 2) * 8) | ((r & 3) * 2) |
           ((c >> 1) & 1);
  };
  float acc[2] = {(float)cc.e[0], (float)cc.e[1]};
  for (int k = 0; k < 8; k++) {
    float av = (float)s[owner(r, k)].a[k & 1];
    for (int j = 0; j < 2; j++) acc[j] += av * (float)s[owner(k, c + j)].b[(c + j) & 1];
  }
  d.e[0] = (D)acc[0];
  d.e[1] = (D)acc[1];
}
template <class D, class A, class B>
void simdgroup_multiply(simdgroup_matrix<D, 8, 8>& d, simdgroup_matrix<A, 8, 8> a,
                        simdgroup_matrix<B, 8, 8> b, int site = __builtin_LINE()) {
  simdgroup_matrix<D, 8, 8> z;
  z.e[0] = z.e[1] = (D)0;
  simdgroup_multiply_accumulate(d, a, b, z, site);
}
}  // namespace metal
