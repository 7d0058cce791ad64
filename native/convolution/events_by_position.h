// The events of some channels of an image, sorted by position, so that all channels that spike at
// one position are added together.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "base/compiler.h"
#include "synapse/events.h"

namespace synapse {

class EventsByPosition {
 public:
  // Sorts the events of channels [first, last), by counting. The weights of a channel are `channel`
  // numbers long. With `ones` all values are 1 and not written.
  void read(const std::vector<Events>& planes, int64_t first, int64_t last, int64_t channel,
            int64_t positions, bool ones) {
    begin_.assign(static_cast<size_t>(positions + 2), 0);
    int64_t total = 0;
    for (int64_t c = first; c < last; c++) {
      const Events& events = planes[static_cast<size_t>(c)];
      total += events.count;
      for (int64_t e = 0; e < events.count; e++) begin_[position(events, e) + 2]++;
    }
    for (size_t p = 2; p < begin_.size(); p++) begin_[p] += begin_[p - 1];
    if (static_cast<int64_t>(weight_.size()) < total) weight_.resize(static_cast<size_t>(total));
    if (!ones) value_.resize(weight_.size());
    for (int64_t c = first; c < last; c++) {
      const Events& events = planes[static_cast<size_t>(c)];
      const int32_t weight = static_cast<int32_t>((c - first) * channel);
      for (int64_t e = 0; e < events.count; e++) {
        const size_t to = static_cast<size_t>(begin_[position(events, e) + 1]++);
        weight_[to] = weight;
        if (!ones) value_[to] = events.ones ? 1 : events.value[static_cast<size_t>(e)];
      }
    }
  }

#if defined(SYNAPSE_X86)
  // Reads the spikes of x (C, positions) itself; false where a value is not 0 or 1. Reads sixteen
  // positions of 32 channels at a time and transposes their bits, so that every position has words
  // of channels.
  SYNAPSE_AVX2 bool read_spikes(const float* x, int64_t channels, int64_t channel,
                                int64_t positions) {
    constexpr int64_t across = 16, down = 32;
    const int64_t words = (channels + down - 1) / down;
    begin_.resize(static_cast<size_t>(positions + 2));
    weight_.resize(std::max(weight_.size(), static_cast<size_t>(channels * positions + 8)));
    transposed_.resize(static_cast<size_t>(words * across));
    const __m256 zero = _mm256_setzero_ps(), one = _mm256_set1_ps(1.0f);
    const __m256i lanes = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    unsigned others = 0;
    int32_t count = 0;
    for (int64_t p = 0; p < positions; p += across) {
      const int left = static_cast<int>(std::min(across, positions - p));
      const __m256i here[2] = {_mm256_cmpgt_epi32(_mm256_set1_epi32(left), lanes),
                               _mm256_cmpgt_epi32(_mm256_set1_epi32(left - 8), lanes)};
      for (int64_t w = 0; w < words; w++) {
        alignas(32) uint8_t bits[2][down] = {};
        const float* from = x + w * down * positions + p;
        for (int64_t c = 0; c < std::min(down, channels - w * down); c++, from += positions) {
          for (int half = 0; half < 2; half++) {
            const __m256 values = left == across ? _mm256_loadu_ps(from + 8 * half)
                                                 : _mm256_maskload_ps(from + 8 * half, here[half]);
            const int some = _mm256_movemask_ps(_mm256_cmp_ps(values, zero, _CMP_NEQ_UQ));
            const int ones = _mm256_movemask_ps(_mm256_cmp_ps(values, one, _CMP_EQ_OQ));
            others |= static_cast<unsigned>(some ^ ones);
            bits[half][c] = static_cast<uint8_t>(some);
          }
        }
        for (int half = 0; half < 2; half++) {
          // The sign of byte c says whether channel c spikes at the last position. Doubling the
          // bytes moves the bit of the position before into the sign.
          __m256i signs = _mm256_load_si256(reinterpret_cast<const __m256i*>(bits[half]));
          for (int64_t j = 7; j >= 0; j--) {
            transposed_[static_cast<size_t>((8 * half + j) * words + w)] =
                static_cast<uint32_t>(_mm256_movemask_epi8(signs));
            signs = _mm256_add_epi8(signs, signs);
          }
        }
      }
      if (others) return false;
      for (int64_t j = 0; j < left; j++) {
        begin_[static_cast<size_t>(p + j)] = count;
        for (int64_t w = 0; w < words; w++) {
          const uint32_t word = transposed_[static_cast<size_t>(j * words + w)];
          for (int64_t c = w * down; c < std::min(channels, (w + 1) * down); c += 8)
            count += write_set_bits(word >> c % down & 255, static_cast<int32_t>(c),
                                    weight_.data() + count, static_cast<int32_t>(channel));
        }
      }
    }
    begin_[static_cast<size_t>(positions)] = count;
    return true;
  }
#endif

  int64_t count(int64_t position) const {
    return begin_[static_cast<size_t>(position + 1)] - begin_[static_cast<size_t>(position)];
  }
  // For every event at a position: the offset of its channel's weights, and its value.
  const int32_t* weight(int64_t position) const {
    return weight_.data() + begin_[static_cast<size_t>(position)];
  }
  const int32_t* value(int64_t position) const {
    return value_.data() + begin_[static_cast<size_t>(position)];
  }

 private:
  static size_t position(const Events& events, int64_t e) {
    return static_cast<size_t>(events.index[static_cast<size_t>(e)]);
  }

  std::vector<int32_t> begin_, weight_, value_;  // begin_: of the events of every position
  std::vector<uint32_t> transposed_;             // words of channels, by position
};

}  // namespace synapse
