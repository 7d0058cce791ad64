// The events of several rows of inputs, read together so that the weights of one tile of outputs
// stay in a cache while all rows are summed.
#pragma once

#include <algorithm>
#include <cstdint>
#include <memory>
#include <type_traits>
#include <vector>

#include "base/compiler.h"
#include "synapse/events.h"

namespace synapse {

// The events of one row.
struct EventRow {
  const int32_t *index, *value;  // no values where all are 1
  int64_t count, total;          // total: the sum of the values' magnitudes
};

// The events of several rows, in one array.
class EventRows {
 public:
  void clear() {
    rows_.clear();
    used_ = 0;
    integers_ = true;
  }

  void add_spikes(const int32_t* index, int64_t count) {
    std::copy_n(index, count, room(index_, count));
    rows_.push_back({used_, count, count, true, true});
    used_ += count;
  }

  void add(const Events& events) {
    if (events.ones && events.integers) return add_spikes(events.index.data(), events.count);
    const int64_t count = events.integers ? events.count : 0;
    std::copy_n(events.index.data(), count, room(index_, count));
    std::copy_n(events.value.data(), count, room(value_, count));
    rows_.push_back({used_, count, events.total, false, events.integers});
    used_ += count;
    integers_ &= events.integers;
  }

  int64_t size() const { return static_cast<int64_t>(rows_.size()); }
  // whether all inputs were integers, of all rows and of one; a row of other inputs has no events
  bool integers() const { return integers_; }
  bool integers(int64_t row) const { return at(row).integers; }

  EventRow row(int64_t row) const {
    const Entry& entry = at(row);
    return {index_.data() + entry.begin, entry.ones ? nullptr : value_.data() + entry.begin,
            entry.count, entry.total};
  }

 private:
  struct Entry {
    int64_t begin, count, total;
    bool ones, integers;
  };

  const Entry& at(int64_t row) const { return rows_[row]; }

  // The end of an array, grown for `count` more. Rows of ones leave a gap in the values.
  int32_t* room(std::vector<int32_t>& values, int64_t count) const {
    const size_t least = static_cast<size_t>(used_ + count);
    if (values.size() < least) values.resize(least + least / 2);
    return values.data() + used_;
  }

  std::vector<Entry> rows_;
  std::vector<int32_t> index_, value_;
  int64_t used_ = 0;
  bool integers_ = true;
};

// The spikes of an input whose last axis is time, (N, C, T), for up to kSteps time steps of one
// sample. Each input is read along time, and appended to the list of every step in which it spikes.
class TimeLastSpikes {
 public:
  static constexpr int64_t kSteps = 320;  // the ends of so many lists stay in the L1 cache

  explicit TimeLastSpikes(int64_t inputs)
      : inputs_(inputs), room_(inputs + Events::kRoom), spikes_(new int32_t[room_ * kSteps]) {}

  // Reads steps of inputs that lie `stride` values apart; false where a value is not 0 or 1.
  template <class X>
  bool read(const X* x, int64_t stride, int64_t steps) {
    for (int64_t t = 0; t < steps; t++) ends_[t] = spikes_.get() + t * room_;
#if defined(SYNAPSE_X86)
    if constexpr (std::is_same_v<X, float>) {
      static const int level = instruction_level();
      if (level >= 4) return read_512(x, stride, steps);
      if (level >= 3) return read_256(x, stride, steps);
    }
#endif
    for (int64_t c = 0; c < inputs_; c++, x += stride)
      if (!rest(x, c, 0, steps)) return false;
    return true;
  }

  const int32_t* begin(int64_t step) const { return spikes_.get() + step * room_; }
  int64_t count(int64_t step) const { return ends_[step] - begin(step); }

 private:
  SYNAPSE_INLINE void put(int64_t step, int64_t input) {
    *ends_[step]++ = static_cast<int32_t>(input);
  }

  template <class X>
  SYNAPSE_INLINE bool rest(const X* x, int64_t input, int64_t from, int64_t steps) {
    for (int64_t t = from; t < steps; t++) {
      if (x[t] == X(0)) continue;
      if (x[t] != X(1)) return false;
      put(t, input);
    }
    return true;
  }

#if defined(SYNAPSE_X86)
  // Reads sixteen steps of 32 inputs at a time. Their bits are transposed, and the inputs that
  // spike in a step are appended to its list without a branch.
  SYNAPSE_AVX512 bool read_512(const float* x, int64_t stride, int64_t steps) {
    constexpr int64_t each = 32;
    const __m512 one = _mm512_set1_ps(1.0f);
    const __m512i sixteen = _mm512_set1_epi32(16);
    __m512i low = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    unsigned others = 0;
    for (int64_t c = 0; c < inputs_; c += each, x += each * stride) {
      const int64_t count = std::min(each, inputs_ - c);
      const int64_t next = c + 2 * each <= inputs_ ? each * stride : 0;
      const __m512i high = _mm512_add_epi32(low, sixteen);
      alignas(64) uint16_t bits[each] = {};
      for (int64_t t = 0; t < steps; t += 16) {
        const int64_t left = std::min<int64_t>(steps - t, 16);
        const __mmask16 here = static_cast<__mmask16>((1u << left) - 1);
        for (int64_t i = 0; i < count; i++) {
          const float* from = x + i * stride + t;
          _mm_prefetch(reinterpret_cast<const char*>(from + next), _MM_HINT_T0);
          const __m512 values = _mm512_maskz_loadu_ps(here, from);
          const unsigned some = _mm512_cmp_ps_mask(values, _mm512_setzero_ps(), _CMP_NEQ_UQ);
          others |= some ^ _mm512_cmp_ps_mask(values, one, _CMP_EQ_OQ);
          bits[i] = static_cast<uint16_t>(some);
        }
        // The sign of word i says whether input i spikes in the last step. Doubling the words
        // moves the bit of the step before into the sign.
        __m512i signs = _mm512_load_si512(bits);
        signs = _mm512_sll_epi16(signs, _mm_cvtsi64_si128(16 - left));
        for (int64_t j = left - 1; j >= 0; j--) {
          const __mmask32 spiking = _mm512_movepi16_mask(signs);
          signs = _mm512_add_epi16(signs, signs);
          int32_t* end = ends_[t + j];
          const __mmask16 first = static_cast<__mmask16>(spiking);
          const __mmask16 second = static_cast<__mmask16>(spiking >> 16);
          // writes up to 15 numbers beyond the last spike, for which each list has room
          _mm512_storeu_si512(end, _mm512_maskz_compress_epi32(first, low));
          end += __builtin_popcount(first);
          _mm512_storeu_si512(end, _mm512_maskz_compress_epi32(second, high));
          ends_[t + j] = end + __builtin_popcount(second);
        }
      }
      if (others) return false;
      low = _mm512_add_epi32(high, sixteen);
    }
    return true;
  }

  // Reads eight steps of 32 inputs at a time.
  SYNAPSE_AVX2 bool read_256(const float* x, int64_t stride, int64_t steps) {
    constexpr int64_t each = 32, across = 8;
    const __m256 zero = _mm256_setzero_ps(), one = _mm256_set1_ps(1.0f);
    const __m256i lanes = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    int others = 0;
    for (int64_t c = 0; c < inputs_; c += each, x += each * stride) {
      const int64_t count = std::min(each, inputs_ - c);
      const int64_t next = c + 2 * each <= inputs_ ? each * stride : 0;
      alignas(32) uint8_t bits[each] = {};
      for (int64_t t = 0; t < steps; t += across) {
        const int64_t left = std::min(steps - t, across);
        const __m256i here = _mm256_cmpgt_epi32(_mm256_set1_epi32(static_cast<int>(left)), lanes);
        for (int64_t i = 0; i < count; i++) {
          const float* from = x + i * stride + t;
          _mm_prefetch(reinterpret_cast<const char*>(from + next), _MM_HINT_T0);
          const __m256 values =
              left == across ? _mm256_loadu_ps(from) : _mm256_maskload_ps(from, here);
          const int some = _mm256_movemask_ps(_mm256_cmp_ps(values, zero, _CMP_NEQ_UQ));
          others |= some ^ _mm256_movemask_ps(_mm256_cmp_ps(values, one, _CMP_EQ_OQ));
          bits[i] = static_cast<uint8_t>(some);
        }
        // The sign of byte i says whether input i spikes in the last step, as above.
        __m256i signs = _mm256_load_si256(reinterpret_cast<const __m256i*>(bits));
        signs = _mm256_sll_epi32(signs, _mm_cvtsi64_si128(across - left));
        for (int64_t j = left - 1; j >= 0; j--) {
          const unsigned spiking = static_cast<unsigned>(_mm256_movemask_epi8(signs));
          signs = _mm256_add_epi8(signs, signs);
          int32_t* end = ends_[t + j];
          for (int q = 0; q < 4; q++)
            end += write_set_bits(spiking >> 8 * q & 255, static_cast<int32_t>(c + 8 * q), end);
          ends_[t + j] = end;
        }
      }
      if (others) return false;
    }
    return true;
  }
#endif

  int64_t inputs_, room_;
  std::unique_ptr<int32_t[]> spikes_;  // (kSteps, room_); only the spikes are ever written
  int32_t* ends_[kSteps];              // of the lists
};

}  // namespace synapse
