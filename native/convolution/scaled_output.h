// From sums to the output of a convolution: sums have output channels last, the output has
// them first, so blocks are scaled, raised by their bias, and transposed in registers.
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
SYNAPSE_AVX512 SYNAPSE_INLINE __m512 floats_512(const float* from) { return _mm512_loadu_ps(from); }
SYNAPSE_AVX512 SYNAPSE_INLINE __m512 floats_512(const int16_t* from) {
  return _mm512_cvtepi32_ps(
      _mm512_cvtepi16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(from))));
}

// to[i * all + p] = from[p * padded + i] * scale[i] + bias[i], for the positions p of `here`, of
// 16, and `count` of 16 output channels i. It reads the sums of all 16 positions.
template <bool biased, class S>
SYNAPSE_AVX512 inline void transpose_512(const S* from, int64_t padded, __m512 scale, __m512 bias,
                                         int64_t count, float* to, int64_t all, __mmask16 here) {
  __m512 a[16], b[16];
  for (int p = 0; p < 16; p++) {
    a[p] = _mm512_mul_ps(floats_512(from + p * padded), scale);
    if constexpr (biased) a[p] = _mm512_add_ps(a[p], bias);
  }
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
  if (here == 0xffff) {
    for (int64_t i = 0; i < count; i++) _mm512_storeu_ps(to + i * all, b[i]);
  } else {
    for (int64_t i = 0; i < count; i++) _mm512_mask_storeu_ps(to + i * all, here, b[i]);
  }
}
SYNAPSE_AVX2 SYNAPSE_INLINE __m256 floats_256(const int32_t* from) {
  return _mm256_cvtepi32_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(from)));
}
SYNAPSE_AVX2 SYNAPSE_INLINE __m256 floats_256(const float* from) { return _mm256_loadu_ps(from); }
SYNAPSE_AVX2 SYNAPSE_INLINE __m256 floats_256(const int16_t* from) {
  return _mm256_cvtepi32_ps(
      _mm256_cvtepi16_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from))));
}

// The same for `left` of 8 positions and `count` of 8 output channels.
template <bool biased, class S>
SYNAPSE_AVX2 inline void transpose_256(const S* from, int64_t padded, __m256 scale, __m256 bias,
                                       int64_t count, float* to, int64_t all, int64_t left) {
  __m256 a[8], b[8];
  for (int p = 0; p < 8; p++) {
    a[p] = _mm256_mul_ps(floats_256(from + p * padded), scale);
    if constexpr (biased) a[p] = _mm256_add_ps(a[p], bias);
  }
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
  if (left >= 8) {
    for (int64_t i = 0; i < count; i++) _mm256_storeu_ps(to + i * all, b[i]);
    return;
  }
  const __m256i here = _mm256_cmpgt_epi32(_mm256_set1_epi32(static_cast<int>(left)),
                                          _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
  for (int64_t i = 0; i < count; i++) _mm256_maskstore_ps(to + i * all, here, b[i]);
}
#endif

// out[o][position] = scale[o] * sums[position][o] + bias[o], for `outputs` channels and `positions`
// of the `all` positions of an output image; without `biased` there is no bias. A position has
// `padded` sums, and there is memory for kOutputBlock positions more than there are.
template <class S, bool biased>
struct ScaledOutput {
  const S* sums;
  int64_t positions, padded, outputs;
  WeightScale scale;
  const float* bias;
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
      const __mmask16 some = static_cast<__mmask16>((1u << count) - 1);
      const __m512 scales = scale.shared ? _mm512_set1_ps(scale[0])
                                         : _mm512_maskz_loadu_ps(some, scale.values + first);
      const __m512 biases =
          biased ? _mm512_maskz_loadu_ps(some, bias + first) : _mm512_setzero_ps();
      const S* from = sums + first;
      float* to = out + first * all;
      for (int64_t position = 0; position < positions; position += kOutputBlock) {
        const int64_t left = std::min<int64_t>(kOutputBlock, positions - position);
        transpose_512<biased>(from + position * padded, padded, scales, biases, count,
                              to + position, all, static_cast<__mmask16>((1u << left) - 1));
      }
    }
  }

  SYNAPSE_AVX2 void write_256() const {
    constexpr int64_t each = 8;
    for (int64_t first = 0; first < outputs; first += each) {
      const int64_t count = std::min(each, outputs - first);
      alignas(32) float scales[each], biases[each];
      for (int64_t i = 0; i < each; i++) {
        scales[i] = i < count ? scale[first + i] : 0.0f;
        biases[i] = biased && i < count ? bias[first + i] : 0.0f;
      }
      const __m256 by = _mm256_load_ps(scales), plus = _mm256_load_ps(biases);
      const S* from = sums + first;
      float* to = out + first * all;
      for (int64_t position = 0; position < positions; position += each)
        transpose_256<biased>(from + position * padded, padded, by, plus, count, to + position, all,
                              positions - position);
    }
  }
#endif

  SYNAPSE_CLONES void write_any() const {
    for (int64_t first = 0; first < outputs; first += kOutputBlock) {
      const int64_t count = std::min<int64_t>(kOutputBlock, outputs - first);
      alignas(64) float scales[kOutputBlock], biases[kOutputBlock];
      alignas(64) float block[kOutputBlock][kOutputBlock];
      for (int64_t i = 0; i < kOutputBlock; i++) {
        scales[i] = i < count ? scale[first + i] : 0.0f;
        biases[i] = biased && i < count ? bias[first + i] : 0.0f;
      }
      const auto value = [&](S sum, int64_t i) SYNAPSE_LAMBDA {
        const float scaled = static_cast<float>(sum) * scales[i];
        return biased ? scaled + biases[i] : scaled;
      };
      const S* from = sums + first;
      float* to = out + first * all;
      int64_t position = 0;
      for (; position + kOutputBlock <= positions; position += kOutputBlock) {
        for (int p = 0; p < kOutputBlock; p++) {
          const S* row = from + (position + p) * padded;
          SYNAPSE_INDEPENDENT
          for (int i = 0; i < kOutputBlock; i++) block[p][i] = value(row[i], i);
        }
        for (int64_t i = 0; i < count; i++)
          for (int p = 0; p < kOutputBlock; p++) to[i * all + position + p] = block[p][i];
      }
      for (; position < positions; position++)
        for (int64_t i = 0; i < count; i++)
          to[i * all + position] = value(from[position * padded + i], i);
    }
  }
};

}  // namespace synapse
