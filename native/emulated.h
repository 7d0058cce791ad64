// Tests of what is written for AVX-512, on a processor without it: SIMDe's functions stand in for
// the instructions. Two of them reach beyond their masks (SIMDe 0.8.2) and are written anew.
#pragma once

#define SIMDE_ENABLE_NATIVE_ALIASES
#include <simde/x86/avx512.h>

#define SYNAPSE_TARGET(instructions)

namespace synapse {

inline __m512 load_where(__mmask16 mask, const void* from) {
  float values[16] = {};
  for (int i = 0; i < 16; i++)
    if (mask >> i & 1) values[i] = static_cast<const float*>(from)[i];
  return _mm512_loadu_ps(values);
}

inline void store_where(void* to, __mmask16 mask, __m512 a) {
  float values[16];
  _mm512_storeu_ps(values, a);
  for (int i = 0; i < 16; i++)
    if (mask >> i & 1) static_cast<float*>(to)[i] = values[i];
}

}  // namespace synapse

#undef _mm512_maskz_loadu_ps
#define _mm512_maskz_loadu_ps ::synapse::load_where
#undef _mm512_mask_storeu_ps
#define _mm512_mask_storeu_ps ::synapse::store_where
