// Plain convolutions with a stride above 1: every output gathers the events that it sees.
//
// With such a stride an event reaches few outputs, sometimes one and sometimes two, and branch
// mispredictions dominate a scatter. So the spikes are written into a bitmap, every output cuts out
// the bits that its kernel sees, and the weights of the set bits are summed.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <vector>

#include "base/call.h"
#include "base/compiler.h"
#include "base/memory.h"
#include "convolution/weights.h"
#include "synapse/events.h"

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
              static_cast<int16_t>(integer_weight(weights[p], o * count + i));
  }
};

constexpr int64_t kGatherOutputs = 8;  // outputs whose bits are cut out of the bitmap together

// Words whose weights are summed in 16 bits before they are widened to 32. A word has at most 63
// bits and a weight a magnitude of at most 128, and 4 * 63 * 128 < 2**15.
constexpr int64_t kShortWords = 4;

// Whether outputs can gather, and ever pay. A 64-bit read must hold the bits of eight neighbouring
// outputs, from any bit of its first byte on. With AVX2 the gather pays only for few channels: the
// scatter adds many channels together before it writes a sum.
inline bool can_gather(const ConvWeights& w, const WindowAttributes& attributes, int64_t groups) {
  constexpr int64_t few = 32;  // rows of a kernel, over all channels
  const int64_t stride = attributes.strides[1], level = instruction_level();
  const bool pays = level >= 4 || (level >= 3 && w.channels * w.height <= few);
  return pays && w.bytes && groups == 1 && stride > 1 && attributes.dilations[1] == 1 &&
         w.width > 0 && 7 + (kGatherOutputs - 1) * stride + w.width <= 64;
}

// Whether the gather is less work than the scatter for these events. The scatter of an event costs
// as much as a gather looking at rows_an_event rows of a kernel.
inline bool gather_pays(const ConvGeometry& g, const std::vector<Events>& planes) {
  constexpr int64_t rows_an_event = 16;
  int64_t events = 0;
  for (const Events& plane : planes) events += plane.count;
  return events * rows_an_event > g.positions() * g.channels * g.kernel_height / 2;
}

// Spikes as a bitmap, with one row of bits for every row of a channel and zeros for the pads. The
// bits that a kernel sees at one output are cut out of it as 64-bit words.
class SpikeGather {
 public:
  SpikeGather(const ConvGeometry& g, const GatherWeights& weights)
      : g_(g),
        weights_(weights),
        each_(63 / g.kernel_width),
        row_((g.pad_x + g.width + g.stride_x * g.out_width + 7) / 8 + 16),
        bits_((g.channels * g.height + 1) * row_),
        rows_(g.channels * g.kernel_height),
        words_((g.channels * g.kernel_height + each_ - 1) / each_ * kGatherOutputs),
        y_of_(g.height * g.width),
        x_of_(y_of_.size()) {
    for (int64_t i = 0; i < g.height * g.width; i++) {
      y_of_[i] = static_cast<int32_t>(i / g.width);
      x_of_[i] = static_cast<int32_t>(i % g.width);
    }
  }

  // Reads the spikes of an image.
  void read(const std::vector<Events>& planes) {
    std::fill(bits_.begin(), bits_.end(), uint8_t{0});
    for (int64_t c = 0; c < g_.channels; c++) {
      const Events& events = planes[c];
      for (int64_t e = 0; e < events.count; e++) {
        const int32_t i = events.index[e];
        const int64_t x = x_of_[i] + g_.pad_x;
        uint8_t* row = bits_.data() + (c * g_.height + y_of_[i]) * row_;
        row[x / 8] = static_cast<uint8_t>(row[x / 8] | 1 << x % 8);
      }
    }
  }

  // Computes sums[position][output channel] for a row of outputs.
  void row(int64_t y, int32_t* sums) {
    static const bool wide = instruction_level() >= 4;
    const int64_t words = static_cast<int64_t>(words_.size()) / kGatherOutputs;
    select(y);
    for (int64_t x = 0; x < g_.out_width; x += kGatherOutputs) {
      for (int64_t w = 0; w < words; w++) {
        const int64_t first = w * each_,
                      rows = std::min(each_, g_.channels * g_.kernel_height - first);
        uint64_t* to = words_.data() + w * kGatherOutputs;
        wide ? words_512(first, rows, x, to) : words_256(first, rows, x, to);
      }
      const int64_t count = std::min(kGatherOutputs, g_.out_width - x), padded = weights_.padded;
      constexpr int64_t each = 2 * GatherWeights::kPerRegister;
      int64_t o = 0;
      for (; o + each <= padded; o += each)
        wide ? outputs_512<2>(count, o, words, sums + o)
             : outputs_256<4>(count, o, words, sums + o);
      if (o < padded)
        wide ? outputs_512<1>(count, o, words, sums + o)
             : outputs_256<2>(count, o, words, sums + o);
      sums += count * padded;
    }
  }

 private:
  // Selects a row of outputs: one row of bits for every channel and row of the kernel.
  void select(int64_t out_y) {
    const uint8_t* silent = bits_.data() + g_.channels * g_.height * row_;
    for (int64_t c = 0; c < g_.channels; c++) {
      for (int64_t k = 0; k < g_.kernel_height; k++) {
        const int64_t y = out_y * g_.stride_y - g_.pad_y + k * g_.dilation_y;
        const bool inside = y >= 0 && y < g_.height;
        rows_[c * g_.kernel_height + k] =
            inside ? bits_.data() + (c * g_.height + y) * row_ : silent;
      }
    }
  }

  // For eight outputs i from out_x on: words[i] = the bits that the kernel's rows
  // [first, first + count) see at output out_x + i, kernel_width bits of each row, lowest row
  // first.
  SYNAPSE_AVX512
  void words_512(int64_t first, int64_t count, int64_t out_x, uint64_t* words) const {
    const int64_t x = out_x * g_.stride_x, s = g_.stride_x;
    const __m512i right =
        _mm512_add_epi64(_mm512_set1_epi64(x % 8),
                         _mm512_setr_epi64(0, s, 2 * s, 3 * s, 4 * s, 5 * s, 6 * s, 7 * s));
    const __m512i mask = _mm512_set1_epi64((int64_t{1} << g_.kernel_width) - 1);
    __m512i all = _mm512_setzero_si512();
    for (int64_t i = 0; i < count; i++) {
      const __m512i row = _mm512_set1_epi64(bits_from(first + i, x));
      const __m512i part = _mm512_and_si512(_mm512_srlv_epi64(row, right), mask);
      all = _mm512_or_si512(all, _mm512_sll_epi64(part, _mm_cvtsi64_si128(i * g_.kernel_width)));
    }
    _mm512_storeu_si512(words, all);
  }

  SYNAPSE_AVX2 void words_256(int64_t first, int64_t count, int64_t out_x, uint64_t* words) const {
    const int64_t x = out_x * g_.stride_x, s = g_.stride_x;
    const __m256i low =
        _mm256_add_epi64(_mm256_set1_epi64x(x % 8), _mm256_setr_epi64x(0, s, 2 * s, 3 * s));
    const __m256i high = _mm256_add_epi64(low, _mm256_set1_epi64x(4 * s));
    const __m256i mask = _mm256_set1_epi64x((int64_t{1} << g_.kernel_width) - 1);
    __m256i lows = _mm256_setzero_si256(), highs = lows;
    for (int64_t i = 0; i < count; i++) {
      const __m256i row = _mm256_set1_epi64x(bits_from(first + i, x));
      const __m128i left = _mm_cvtsi64_si128(i * g_.kernel_width);
      const __m256i a = _mm256_and_si256(_mm256_srlv_epi64(row, low), mask);
      const __m256i b = _mm256_and_si256(_mm256_srlv_epi64(row, high), mask);
      lows = _mm256_or_si256(lows, _mm256_sll_epi64(a, left));
      highs = _mm256_or_si256(highs, _mm256_sll_epi64(b, left));
    }
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(words), lows);
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(words + 4), highs);
  }

  // 64 bits of a selected row, from the byte of column x on.
  int64_t bits_from(int64_t row, int64_t x) const {
    int64_t bits;
    std::memcpy(&bits, rows_[row] + x / 8, sizeof bits);
    return bits;
  }

  // Computes the sums of `count` outputs from their words, for the output channels from `first` on
  // whose sums fill the registers.
  template <int registers>
  SYNAPSE_AVX512 void outputs_512(int64_t count, int64_t first, int64_t words,
                                  int32_t* sums) const {
    const int64_t next = each_ * g_.kernel_width * weights_.padded;
    const __m512i zero = _mm512_setzero_si512();
    for (int64_t i = 0; i < count; i++, sums += weights_.padded) {
      const int16_t* weights = weights_.rows.data() + first;
      __m512i short_sums[registers], long_sums[2 * registers];
      for (int v = 0; v < registers; v++)
        short_sums[v] = long_sums[2 * v] = long_sums[2 * v + 1] = zero;
      for (int64_t w = 0; w < words; w++, weights += next) {
        uint64_t word = words_[w * kGatherOutputs + i];
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
  }

  template <int registers>
  SYNAPSE_AVX2 void outputs_256(int64_t count, int64_t first, int64_t words, int32_t* sums) const {
    const int64_t next = each_ * g_.kernel_width * weights_.padded;
    const __m256i zero = _mm256_setzero_si256();
    for (int64_t i = 0; i < count; i++, sums += weights_.padded) {
      const int16_t* weights = weights_.rows.data() + first;
      __m256i short_sums[registers], long_sums[2 * registers];
      for (int v = 0; v < registers; v++)
        short_sums[v] = long_sums[2 * v] = long_sums[2 * v + 1] = zero;
      for (int64_t w = 0; w < words; w++, weights += next) {
        uint64_t word = words_[w * kGatherOutputs + i];
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
  }

  const ConvGeometry g_;
  const GatherWeights& weights_;
  int64_t each_;  // rows of the kernel whose bits fit a word of 63 bits
  int64_t row_;   // bytes of a row, with room for a read of 64 bits at its end
  std::vector<uint8_t> bits_;
  std::vector<const uint8_t*> rows_;  // the selected rows
  std::vector<uint64_t> words_;
  std::vector<int32_t> y_of_, x_of_;  // of every input position
};

}  // namespace synapse
#endif
