// The spikes of an image as bits: one row of bits for every row of a channel, with zeros for the
// pads. The bits that a kernel sees at one output are cut out of it as 64-bit words.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <vector>

#include "base/compiler.h"
#include "convolution/geometry.h"
#include "synapse/events.h"

#if defined(SYNAPSE_X86)
namespace synapse {

class SpikeBitmap {
 public:
  explicit SpikeBitmap(const ConvGeometry& g)
      : row_((g.pad_x + g.width + g.stride_x * g.out_width + 7) / 8 + 16),
        bits_(static_cast<size_t>((g.channels * g.height + 1) * row_)),
        rows_(static_cast<size_t>(g.channels * g.kernel_height)),
        y_of_(static_cast<size_t>(g.height * g.width)),
        x_of_(y_of_.size()) {
    for (int64_t i = 0; i < g.height * g.width; i++) {
      y_of_[static_cast<size_t>(i)] = static_cast<int32_t>(i / g.width);
      x_of_[static_cast<size_t>(i)] = static_cast<int32_t>(i % g.width);
    }
  }

  void read(const ConvGeometry& g, const std::vector<Events>& planes) {
    std::fill(bits_.begin(), bits_.end(), uint8_t{0});
    for (int64_t c = 0; c < g.channels; c++) {
      const Events& events = planes[static_cast<size_t>(c)];
      for (int64_t e = 0; e < events.count; e++) {
        const size_t i = static_cast<size_t>(events.index[static_cast<size_t>(e)]);
        const int64_t x = x_of_[i] + g.pad_x;
        uint8_t* row = bits_.data() + (c * g.height + y_of_[i]) * row_;
        row[x / 8] = static_cast<uint8_t>(row[x / 8] | 1 << x % 8);
      }
    }
  }

  // Selects a row of outputs: one row of bits for every channel and row of the kernel.
  void select(const ConvGeometry& g, int64_t out_y) {
    const uint8_t* silent = bits_.data() + g.channels * g.height * row_;
    for (int64_t c = 0; c < g.channels; c++) {
      for (int64_t k = 0; k < g.kernel_height; k++) {
        const int64_t y = out_y * g.stride_y - g.pad_y + k * g.dilation_y;
        const bool inside = y >= 0 && y < g.height;
        rows_[static_cast<size_t>(c * g.kernel_height + k)] =
            inside ? bits_.data() + (c * g.height + y) * row_ : silent;
      }
    }
  }

  // For eight outputs i from out_x on: words[i] = the bits that the kernel's rows
  // [first, first + count) see at output out_x + i, kernel_width bits of each row, lowest row
  // first.
  SYNAPSE_AVX512
  void words_512(const ConvGeometry& g, int64_t first, int64_t count, int64_t out_x,
                 uint64_t* words) const {
    const int64_t x = out_x * g.stride_x, s = g.stride_x;
    const __m512i right =
        _mm512_add_epi64(_mm512_set1_epi64(x % 8),
                         _mm512_setr_epi64(0, s, 2 * s, 3 * s, 4 * s, 5 * s, 6 * s, 7 * s));
    const __m512i mask = _mm512_set1_epi64((int64_t{1} << g.kernel_width) - 1);
    __m512i all = _mm512_setzero_si512();
    for (int64_t i = 0; i < count; i++) {
      const __m512i row = _mm512_set1_epi64(bits_from(first + i, x));
      const __m512i part = _mm512_and_si512(_mm512_srlv_epi64(row, right), mask);
      all = _mm512_or_si512(all, _mm512_sll_epi64(part, _mm_cvtsi64_si128(i * g.kernel_width)));
    }
    _mm512_storeu_si512(words, all);
  }

  SYNAPSE_AVX2 void words_256(const ConvGeometry& g, int64_t first, int64_t count, int64_t out_x,
                              uint64_t* words) const {
    const int64_t x = out_x * g.stride_x, s = g.stride_x;
    const __m256i low =
        _mm256_add_epi64(_mm256_set1_epi64x(x % 8), _mm256_setr_epi64x(0, s, 2 * s, 3 * s));
    const __m256i high = _mm256_add_epi64(low, _mm256_set1_epi64x(4 * s));
    const __m256i mask = _mm256_set1_epi64x((int64_t{1} << g.kernel_width) - 1);
    __m256i lows = _mm256_setzero_si256(), highs = lows;
    for (int64_t i = 0; i < count; i++) {
      const __m256i row = _mm256_set1_epi64x(bits_from(first + i, x));
      const __m128i left = _mm_cvtsi64_si128(i * g.kernel_width);
      const __m256i a = _mm256_and_si256(_mm256_srlv_epi64(row, low), mask);
      const __m256i b = _mm256_and_si256(_mm256_srlv_epi64(row, high), mask);
      lows = _mm256_or_si256(lows, _mm256_sll_epi64(a, left));
      highs = _mm256_or_si256(highs, _mm256_sll_epi64(b, left));
    }
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(words), lows);
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(words + 4), highs);
  }

  int64_t rows() const { return static_cast<int64_t>(rows_.size()); }

 private:
  // 64 bits of a selected row, from the byte of column x on.
  int64_t bits_from(int64_t row, int64_t x) const {
    int64_t bits;
    std::memcpy(&bits, rows_[static_cast<size_t>(row)] + x / 8, sizeof bits);
    return bits;
  }

  int64_t row_;  // bytes of a row, with room for a read of 64 bits at its end
  std::vector<uint8_t> bits_;
  std::vector<const uint8_t*> rows_;  // the selected rows
  std::vector<int32_t> y_of_, x_of_;  // of every input position
};

}  // namespace synapse
#endif
