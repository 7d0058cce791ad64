// From sums to the output of a convolution: sums have output channels last, the output has
// them first, so blocks are scaled and transposed in registers.
#pragma once

#include <algorithm>
#include <cstdint>

#include "base/compiler.h"
#include "convolution/weights.h"

namespace synapse {

#if defined(SYNAPSE_X86)
SYNAPSE_AVX512 SYNAPSE_INLINE __m512 floats_512(const int32_t* from) {
  return _mm512_cvtepi32_ps(_mm512_loadu_si512(from));
}
SYNAPSE_AVX512 SYNAPSE_INLINE __m512 floats_512(const int16_t* from) {
  return _mm512_cvtepi32_ps(
      _mm512_cvtepi16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(from))));
}

SYNAPSE_AVX512 SYNAPSE_INLINE __m512 floats_512(const float* from) { return _mm512_loadu_ps(from); }

// to[i * all + p] = from[p * padded + i] * scale[i], for 16 positions p and `count` of 16 output
// channels i.
template <class S>
SYNAPSE_AVX512 inline void transpose_512(const S* from, int64_t padded, __m512 scale, int64_t count,
                                         float* to, int64_t all) {
  __m512 a[16], b[16];
  for (int p = 0; p < 16; p++) a[p] = _mm512_mul_ps(floats_512(from + p * padded), scale);
  // within quarters of 128 bits: interleave pairs of rows, then groups of four
  for (int p = 0; p < 16; p += 2) {
    b[p] = _mm512_unpacklo_ps(a[p], a[p + 1]);
    b[p + 1] = _mm512_unpackhi_ps(a[p], a[p + 1]);
  }
  for (int p = 0; p < 16; p += 4) {
    __m512d pairs[4];
    for (int i = 0; i < 4; i++) pairs[i] = _mm512_castps_pd(b[p + i]);
    a[p] = _mm512_castpd_ps(_mm512_unpacklo_pd(pairs[0], pairs[2]));
    a[p + 1] = _mm512_castpd_ps(_mm512_unpackhi_pd(pairs[0], pairs[2]));
    a[p + 2] = _mm512_castpd_ps(_mm512_unpacklo_pd(pairs[1], pairs[3]));
    a[p + 3] = _mm512_castpd_ps(_mm512_unpackhi_pd(pairs[1], pairs[3]));
  }
  // now quarter q of a[4 g + r] holds channel 4 q + r of the positions 4 g to 4 g + 3
  for (int r = 0; r < 4; r++) {
    const __m512 low01 = _mm512_shuffle_f32x4(a[r], a[4 + r], 0x44);
    const __m512 high01 = _mm512_shuffle_f32x4(a[r], a[4 + r], 0xee);
    const __m512 low23 = _mm512_shuffle_f32x4(a[8 + r], a[12 + r], 0x44);
    const __m512 high23 = _mm512_shuffle_f32x4(a[8 + r], a[12 + r], 0xee);
    b[r] = _mm512_shuffle_f32x4(low01, low23, 0x88);
    b[4 + r] = _mm512_shuffle_f32x4(low01, low23, 0xdd);
    b[8 + r] = _mm512_shuffle_f32x4(high01, high23, 0x88);
    b[12 + r] = _mm512_shuffle_f32x4(high01, high23, 0xdd);
  }
  for (int64_t i = 0; i < count; i++) _mm512_storeu_ps(to + i * all, b[i]);
}
SYNAPSE_AVX2 SYNAPSE_INLINE __m256 floats_256(const int32_t* from) {
  return _mm256_cvtepi32_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(from)));
}
SYNAPSE_AVX2 SYNAPSE_INLINE __m256 floats_256(const int16_t* from) {
  return _mm256_cvtepi32_ps(
      _mm256_cvtepi16_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from))));
}

SYNAPSE_AVX2 SYNAPSE_INLINE __m256 floats_256(const float* from) { return _mm256_loadu_ps(from); }

// The same for 8 positions and `count` of 8 output channels.
template <class S>
SYNAPSE_AVX2 inline void transpose_256(const S* from, int64_t padded, __m256 scale, int64_t count,
                                       float* to, int64_t all) {
  __m256 a[8], b[8];
  for (int p = 0; p < 8; p++) a[p] = _mm256_mul_ps(floats_256(from + p * padded), scale);
  for (int p = 0; p < 8; p += 2) {
    b[p] = _mm256_unpacklo_ps(a[p], a[p + 1]);
    b[p + 1] = _mm256_unpackhi_ps(a[p], a[p + 1]);
  }
  for (int p = 0; p < 8; p += 4) {
    a[p] = _mm256_shuffle_ps(b[p], b[p + 2], 0x44);
    a[p + 1] = _mm256_shuffle_ps(b[p], b[p + 2], 0xee);
    a[p + 2] = _mm256_shuffle_ps(b[p + 1], b[p + 3], 0x44);
    a[p + 3] = _mm256_shuffle_ps(b[p + 1], b[p + 3], 0xee);
  }
  // now half h of a[4 g + r] holds channel 4 h + r of the positions 4 g to 4 g + 3
  for (int r = 0; r < 4; r++) {
    b[r] = _mm256_permute2f128_ps(a[r], a[4 + r], 0x20);
    b[4 + r] = _mm256_permute2f128_ps(a[r], a[4 + r], 0x31);
  }
  for (int64_t i = 0; i < count; i++) _mm256_storeu_ps(to + i * all, b[i]);
}
#endif

// out[o][position] = scale[o] * sums[position][o], for `outputs` channels and `positions` of the
// `all` positions of an output image. A position has `padded` sums.
template <class S>
struct ScaledOutput {
  const S* sums;
  int64_t positions, padded, outputs;
  WeightScale scale;
  float* out;
  int64_t all;

  void write() const {
#if defined(SYNAPSE_X86)
    static const int level = instruction_level();
    if (level >= 4) return write_512();
    if (level >= 3) return write_256();
#endif
    write_any();
  }

 private:
#if defined(SYNAPSE_X86)
  SYNAPSE_AVX512 void write_512() const {
    for (int64_t first = 0; first < outputs; first += kOutputBlock) {
      const int64_t count = std::min<int64_t>(kOutputBlock, outputs - first);
      const __mmask16 here = static_cast<__mmask16>((1u << count) - 1);
      const __m512 scales = scale.shared ? _mm512_set1_ps(scale[0])
                                         : _mm512_maskz_loadu_ps(here, scale.values + first);
      const S* from = sums + first;
      float* to = out + first * all;
      int64_t position = 0;
      for (; position + kOutputBlock <= positions; position += kOutputBlock)
        transpose_512(from + position * padded, padded, scales, count, to + position, all);
      if (position < positions)
        ScaledOutput{from + position * padded, positions - position, padded, count,
                     scale.from(first),        to + position,        all}
            .write_any();
    }
  }

  SYNAPSE_AVX2 void write_256() const {
    constexpr int64_t each = 8;
    for (int64_t first = 0; first < outputs; first += each) {
      const int64_t count = std::min(each, outputs - first);
      alignas(32) float scales[each];
      for (int64_t i = 0; i < each; i++) scales[i] = i < count ? scale[first + i] : 0.0f;
      const __m256 by = _mm256_load_ps(scales);
      const S* from = sums + first;
      float* to = out + first * all;
      int64_t position = 0;
      for (; position + each <= positions; position += each)
        transpose_256(from + position * padded, padded, by, count, to + position, all);
      for (; position < positions; position++)
        for (int64_t i = 0; i < count; i++)
          to[i * all + position] = static_cast<float>(from[position * padded + i]) * scales[i];
    }
  }
#endif

  SYNAPSE_CLONES void write_any() const {
    for (int64_t first = 0; first < outputs; first += kOutputBlock) {
      const int64_t count = std::min<int64_t>(kOutputBlock, outputs - first);
      alignas(64) float scales[kOutputBlock], block[kOutputBlock][kOutputBlock];
      for (int64_t i = 0; i < kOutputBlock; i++) scales[i] = i < count ? scale[first + i] : 0.0f;
      const S* from = sums + first;
      float* to = out + first * all;
      int64_t position = 0;
      for (; position + kOutputBlock <= positions; position += kOutputBlock) {
        for (int p = 0; p < kOutputBlock; p++) {
          const S* row = from + (position + p) * padded;
          SYNAPSE_INDEPENDENT
          for (int i = 0; i < kOutputBlock; i++)
            block[p][i] = static_cast<float>(row[i]) * scales[i];
        }
        for (int64_t i = 0; i < count; i++)
          for (int p = 0; p < kOutputBlock; p++) to[i * all + position + p] = block[p][i];
      }
      for (; position < positions; position++)
        for (int64_t i = 0; i < count; i++)
          to[i * all + position] = static_cast<float>(from[position * padded + i]) * scales[i];
    }
  }
};

}  // namespace synapse
