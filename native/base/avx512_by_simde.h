// AVX-512 intrinsics by SIMDe (https://github.com/simd-everywhere/simde), for tests of the AVX-512
// code on processors without it. In SIMDe 0.8.2 a masked load and a masked store access memory
// outside of their masks, which the sanitizers report, so both are replaced here.
#pragma once

#define SIMDE_ENABLE_NATIVE_ALIASES
#include <simde/x86/avx512.h>

namespace synapse {

inline __m512 masked_load(__mmask16 mask, const void* from) {
  float values[16] = {};
  for (int i = 0; i < 16; i++)
    if (mask >> i & 1) values[i] = static_cast<const float*>(from)[i];
  return _mm512_loadu_ps(values);
}

inline void masked_store(void* to, __mmask16 mask, __m512 a) {
  float values[16];
  _mm512_storeu_ps(values, a);
  for (int i = 0; i < 16; i++)
    if (mask >> i & 1) static_cast<float*>(to)[i] = values[i];
}

}  // namespace synapse

#undef _mm512_maskz_loadu_ps
#define _mm512_maskz_loadu_ps ::synapse::masked_load
#undef _mm512_mask_storeu_ps
#define _mm512_mask_storeu_ps ::synapse::masked_store
