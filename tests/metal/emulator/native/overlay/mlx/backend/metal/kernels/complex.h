// complex_t without the arithmetic that needs Metal's address-space overloads.
#pragma once
template <typename T>
struct complex_t {
  T real, imag;
  complex_t() = default;
  complex_t(T r, T i) : real(r), imag(i) {}
};
typedef complex_t<float> complex64_t;
