// Lists of the set bits of a byte, by a table.
//
// Which inputs spike is data that no branch predictor learns: a branch on every spike took a third
// of the time of an MLP on an AMD EPYC. So AVX2 code looks the positions of a byte's bits up.
// AVX-512 has an instruction for it (`compress`).
#pragma once

#include <cstdint>

#include "base/compiler.h"

#if defined(SYNAPSE_X86)
namespace synapse {

// The positions of the set bits of every byte, lowest first.
struct SetBits {
  uint8_t of[256][8] = {};

  constexpr SetBits() {
    for (int byte = 0; byte < 256; byte++)
      for (int bit = 0, i = 0; bit < 8; bit++)
        if (byte >> bit & 1) of[byte][i++] = static_cast<uint8_t>(bit);
  }
};
inline constexpr SetBits kSetBits;

// Writes (base + bit) * factor for each set bit of a byte and returns how many there are. Always
// writes eight numbers, so `to` needs room beyond its last one.
SYNAPSE_AVX2 inline int write_set_bits(unsigned byte, int32_t base, int32_t* to,
                                       int32_t factor = 1) {
  const __m128i bits = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(kSetBits.of[byte]));
  const __m256i at = _mm256_add_epi32(_mm256_set1_epi32(base), _mm256_cvtepu8_epi32(bits));
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(to),
                      _mm256_mullo_epi32(at, _mm256_set1_epi32(factor)));
  return __builtin_popcount(byte);
}

}  // namespace synapse
#endif
