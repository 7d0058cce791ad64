// Plain convolutions with a stride above 1: every output gathers the events that it sees.
//
// With such a stride an event reaches few outputs, sometimes one and sometimes two, and branch
// mispredictions dominate a scatter. So the spikes are written into a bitmap, every output cuts out
// the bits that its kernel sees, and the weights of the set bits are summed.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "base/aligned.h"
#include "base/compiler.h"
#include "base/tensor.h"
#include "convolution/geometry.h"
#include "convolution/spike_bitmap.h"

#if defined(SYNAPSE_X86)
namespace synapse {

// Weights of at most 8 bits as [channel][ky][kx][part][output channel], the last two padded
// together.
struct GatherWeights {
  // output channels whose 16-bit sums fill one register of 512 bits, or two of 256
  static constexpr int64_t kPerRegister = 32;

  int64_t count = 0, padded = 0;
  AlignedVector<int16_t> rows;

  // Stays empty where the gather is not used.
  GatherWeights() = default;
  explicit GatherWeights(const std::vector<Input>& weights) {
    const int64_t outputs = weights[0].shape[0], parts = static_cast<int64_t>(weights.size());
    count = product(weights[0].shape, 1);
    padded = (parts * outputs + kPerRegister - 1) / kPerRegister * kPerRegister;
    rows = AlignedVector<int16_t>(count * padded);
    for (int64_t p = 0; p < parts; p++)
      for (int64_t o = 0; o < outputs; o++)
        for (int64_t i = 0; i < count; i++)
          rows.data()[i * padded + p * outputs + o] =
              static_cast<int16_t>(integer_weight(weights[static_cast<size_t>(p)], o * count + i));
  }
};

constexpr int64_t kGatherOutputs = 8;  // outputs whose bits are cut out of the bitmap together

// Words whose weights are summed in 16 bits before they are widened to 32. A word has at most 63
// bits and a weight a magnitude of at most 128, and 4 * 63 * 128 < 2**15.
constexpr int64_t kShortWords = 4;

class SpikeGather {
 public:
  SpikeGather(const ConvGeometry& g, const GatherWeights& weights)
      : g_(g), weights_(weights), each_(63 / g.kernel_width) {
    words_.resize(
        static_cast<size_t>((g.channels * g.kernel_height + each_ - 1) / each_ * kGatherOutputs));
  }

  // Computes sums[position][output channel] for a row of outputs.
  void row(SpikeBitmap& bits, int64_t y, int32_t* sums) {
    static const bool wide = instruction_level() >= 4;
    const int64_t words = static_cast<int64_t>(words_.size()) / kGatherOutputs;
    bits.select(g_, y);
    for (int64_t x = 0; x < g_.out_width; x += kGatherOutputs) {
      for (int64_t w = 0; w < words; w++) {
        const int64_t first = w * each_, rows = std::min(each_, bits.rows() - first);
        uint64_t* to = words_.data() + w * kGatherOutputs;
        wide ? bits.words_512(g_, first, rows, x, to) : bits.words_256(g_, first, rows, x, to);
      }
      const int64_t count = std::min(kGatherOutputs, g_.out_width - x);
      wide ? outputs_512(count, words, sums) : outputs_256(count, words, sums);
      sums += count * weights_.padded;
    }
  }

 private:
  // Computes the sums of `count` outputs from their words.
  SYNAPSE_AVX512
  void outputs_512(int64_t count, int64_t words, int32_t* sums) const {
    for (int64_t i = 0; i < count; i++, sums += weights_.padded) {
      int64_t o = 0;
      for (; o + 2 * GatherWeights::kPerRegister <= weights_.padded;
           o += 2 * GatherWeights::kPerRegister)
        output_512<2>(i, o, words, sums + o);
      if (o < weights_.padded) output_512<1>(i, o, words, sums + o);
    }
  }

  SYNAPSE_AVX2 void outputs_256(int64_t count, int64_t words, int32_t* sums) const {
    for (int64_t i = 0; i < count; i++, sums += weights_.padded) {
      int64_t o = 0;
      for (; o + 2 * GatherWeights::kPerRegister <= weights_.padded;
           o += 2 * GatherWeights::kPerRegister)
        output_256<4>(i, o, words, sums + o);
      if (o < weights_.padded) output_256<2>(i, o, words, sums + o);
    }
  }

  template <int registers>
  SYNAPSE_AVX512 SYNAPSE_LAMBDA inline void output_512(int64_t output, int64_t first, int64_t words,
                                                       int32_t* sums) const {
    const int64_t next = each_ * g_.kernel_width * weights_.padded;
    const int16_t* weights = weights_.rows.data() + first;
    const __m512i zero = _mm512_setzero_si512();
    __m512i short_sums[registers], long_sums[2 * registers];
    for (int v = 0; v < registers; v++)
      short_sums[v] = long_sums[2 * v] = long_sums[2 * v + 1] = zero;
    for (int64_t w = 0; w < words; w++, weights += next) {
      uint64_t word = words_[static_cast<size_t>(w * kGatherOutputs + output)];
      for (; word; word &= word - 1) {
        const int16_t* row = weights + __builtin_ctzll(word) * weights_.padded;
        for (int v = 0; v < registers; v++)
          short_sums[v] = _mm512_add_epi16(short_sums[v], _mm512_loadu_si512(row + 32 * v));
      }
      if (w % kShortWords != kShortWords - 1 && w != words - 1) continue;
      for (int v = 0; v < registers; v++) {
        const __m512i low = _mm512_cvtepi16_epi32(_mm512_castsi512_si256(short_sums[v]));
        const __m512i high = _mm512_cvtepi16_epi32(_mm512_extracti64x4_epi64(short_sums[v], 1));
        long_sums[2 * v] = _mm512_add_epi32(long_sums[2 * v], low);
        long_sums[2 * v + 1] = _mm512_add_epi32(long_sums[2 * v + 1], high);
        short_sums[v] = zero;
      }
    }
    for (int v = 0; v < 2 * registers; v++) _mm512_storeu_si512(sums + 16 * v, long_sums[v]);
  }

  template <int registers>
  SYNAPSE_AVX2 SYNAPSE_LAMBDA inline void output_256(int64_t output, int64_t first, int64_t words,
                                                     int32_t* sums) const {
    const int64_t next = each_ * g_.kernel_width * weights_.padded;
    const int16_t* weights = weights_.rows.data() + first;
    const __m256i zero = _mm256_setzero_si256();
    __m256i short_sums[registers], long_sums[2 * registers];
    for (int v = 0; v < registers; v++)
      short_sums[v] = long_sums[2 * v] = long_sums[2 * v + 1] = zero;
    for (int64_t w = 0; w < words; w++, weights += next) {
      uint64_t word = words_[static_cast<size_t>(w * kGatherOutputs + output)];
      for (; word; word &= word - 1) {
        const auto* row =
            reinterpret_cast<const __m256i*>(weights + __builtin_ctzll(word) * weights_.padded);
        for (int v = 0; v < registers; v++)
          short_sums[v] = _mm256_add_epi16(short_sums[v], _mm256_loadu_si256(row + v));
      }
      if (w % kShortWords != kShortWords - 1 && w != words - 1) continue;
      for (int v = 0; v < registers; v++) {
        const __m256i low = _mm256_cvtepi16_epi32(_mm256_castsi256_si128(short_sums[v]));
        const __m256i high = _mm256_cvtepi16_epi32(_mm256_extracti128_si256(short_sums[v], 1));
        long_sums[2 * v] = _mm256_add_epi32(long_sums[2 * v], low);
        long_sums[2 * v + 1] = _mm256_add_epi32(long_sums[2 * v + 1], high);
        short_sums[v] = zero;
      }
    }
    auto* to = reinterpret_cast<__m256i*>(sums);
    for (int v = 0; v < 2 * registers; v++) _mm256_storeu_si256(to + v, long_sums[v]);
  }

  const ConvGeometry& g_;
  const GatherWeights& weights_;
  int64_t each_;  // rows of the kernel whose bits fit a word of 63 bits
  std::vector<uint64_t> words_;
};

}  // namespace synapse
#endif
