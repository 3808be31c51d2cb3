// A sigmoid with the same bits on every device: the CPU, each GPU, and numpy.
//
// Whether a score passes the threshold and which of two comes first must not depend on whose expf
// is used. So exp is written out in IEEE additions, multiplications and one division, none of which
// may be contracted: 1 / (1 + 2^n * p(r)) with x = n ln 2 + r, |r| <= ln 2 / 2, and p the Taylor
// polynomial of degree 7 (its remainder is below half an ulp on that interval). The numpy mirror is
// centermask_edge/kernels/reference/decode_nms.py.
#pragma once

#include "common.h"

#if CM_DEVICE_CODE

namespace cm {

// Nearest integer of a float below 2^22, ties to even, by letting the addition round.
__device__ __forceinline__ float round_even(float x) {
  const float shift = 12582912.0f;  // 1.5 * 2^23
  return __fsub_rn(__fadd_rn(x, shift), shift);
}

// exp(x) for -88 <= x <= 88.
__device__ __forceinline__ float pinned_exp(float x) {
  const float n = round_even(__fmul_rn(x, 1.44269504f));
  // ln 2 in two parts; n times the first is exact.
  float r = __fsub_rn(x, __fmul_rn(n, 0.693359375f));
  r = __fsub_rn(r, __fmul_rn(n, -2.12194440e-4f));
  float p = 1.0f / 5040.0f;
  p = __fadd_rn(__fmul_rn(p, r), 1.0f / 720.0f);
  p = __fadd_rn(__fmul_rn(p, r), 1.0f / 120.0f);
  p = __fadd_rn(__fmul_rn(p, r), 1.0f / 24.0f);
  p = __fadd_rn(__fmul_rn(p, r), 1.0f / 6.0f);
  p = __fadd_rn(__fmul_rn(p, r), 0.5f);
  p = __fadd_rn(__fmul_rn(p, r), 1.0f);
  p = __fadd_rn(__fmul_rn(p, r), 1.0f);
  return __fmul_rn(p, __uint_as_float(unsigned(int(n) + 127) << 23));
}

// 1 / (1 + exp(-x)); 0 below -87 and 1 above 87, NaN for NaN.
__device__ __forceinline__ float pinned_sigmoid(float x) {
  if (x != x) return x;
  if (x < -87.0f) return 0.0f;
  if (x > 87.0f) return 1.0f;
  return __fdiv_rn(1.0f, __fadd_rn(1.0f, pinned_exp(-x)));
}

}  // namespace cm

#endif  // CM_DEVICE_CODE
