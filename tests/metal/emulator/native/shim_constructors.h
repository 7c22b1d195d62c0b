// Constants, vectors made by calling their type, and what Metal forbids.
#pragma once
using namespace metal;
#define INFINITY __builtin_inff()
#define NAN __builtin_nanf("")
#define M_PI_F 3.14159265358979323846f
#define M_LOG2E_F 1.44269504088896340736f
#define M_LN2_F 0.693147180559945309417f
#define M_SQRT2_F 1.41421356237309504880f
#define MAXFLOAT 3.402823466e+38f
#define FLT_MAX 3.402823466e+38f
#define FLT_MIN 1.175494351e-38f
// functional casts to vector types
#define char2(...) msl_mk<char2>(__VA_ARGS__)
#define char3(...) msl_mk<char3>(__VA_ARGS__)
#define char4(...) msl_mk<char4>(__VA_ARGS__)
#define uchar2(...) msl_mk<uchar2>(__VA_ARGS__)
#define uchar3(...) msl_mk<uchar3>(__VA_ARGS__)
#define uchar4(...) msl_mk<uchar4>(__VA_ARGS__)
#define short2(...) msl_mk<short2>(__VA_ARGS__)
#define short3(...) msl_mk<short3>(__VA_ARGS__)
#define short4(...) msl_mk<short4>(__VA_ARGS__)
#define ushort2(...) msl_mk<ushort2>(__VA_ARGS__)
#define ushort3(...) msl_mk<ushort3>(__VA_ARGS__)
#define ushort4(...) msl_mk<ushort4>(__VA_ARGS__)
#define int2(...) msl_mk<int2>(__VA_ARGS__)
#define int3(...) msl_mk<int3>(__VA_ARGS__)
#define int4(...) msl_mk<int4>(__VA_ARGS__)
#define uint2(...) msl_mk<uint2>(__VA_ARGS__)
#define uint3(...) msl_mk<uint3>(__VA_ARGS__)
#define uint4(...) msl_mk<uint4>(__VA_ARGS__)
#define long2(...) msl_mk<long2>(__VA_ARGS__)
#define long3(...) msl_mk<long3>(__VA_ARGS__)
#define long4(...) msl_mk<long4>(__VA_ARGS__)
#define ulong2(...) msl_mk<ulong2>(__VA_ARGS__)
#define ulong3(...) msl_mk<ulong3>(__VA_ARGS__)
#define ulong4(...) msl_mk<ulong4>(__VA_ARGS__)
#define float2(...) msl_mk<float2>(__VA_ARGS__)
#define float3(...) msl_mk<float3>(__VA_ARGS__)
#define float4(...) msl_mk<float4>(__VA_ARGS__)
#define half2(...) msl_mk<half2>(__VA_ARGS__)
#define half3(...) msl_mk<half3>(__VA_ARGS__)
#define half4(...) msl_mk<half4>(__VA_ARGS__)
#define bfloat2(...) msl_mk<bfloat2>(__VA_ARGS__)
#define bfloat3(...) msl_mk<bfloat3>(__VA_ARGS__)
#define bfloat4(...) msl_mk<bfloat4>(__VA_ARGS__)
METAL_FUNC uint3 msl_uint3(msl_u3 v) {
  uint3 r;
  r.x = v.x;
  r.y = v.y;
  r.z = v.z;
  return r;
}
struct msl_ptr {
  void* p;
  template <class U>
  MSL_NOSAN operator U*() const {
    return (U*)p;
  }
};
struct msl_ref {
  void* p;
  template <class U>
  MSL_NOSAN operator U&() const {
    return *(U*)p;
  }
};
#pragma GCC poison double virtual dynamic_cast throw goto
