// Several rows of float inputs: their events, which are the inputs that are not zero, or all
// inputs.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "base/compiler.h"
#include "synapse/events.h"

namespace synapse {

// The events of one row, in the order of the inputs.
struct FloatRow {
  const int32_t* index;
  const float* value;  // null where all values are 1
  int64_t count;
};

// The events of several rows, in one array; or, where most inputs are events, all inputs. A NaN is
// an event as any other value; -0 is none.
class FloatRows {
 public:
  void clear() {
    rows_.clear();
    used_ = all_rows_ = 0;
  }

  // All inputs of some rows, which lie `stride` numbers apart and stay where they are.
  void add_all(const float* x, int64_t stride, int64_t count) {
    clear();
    all_ = x;
    stride_ = stride;
    all_rows_ = count;
  }
  // Memory for all inputs of some rows, kept with the rows.
  float* room_for_all(int64_t size) {
    if (static_cast<int64_t>(own_.size()) < size) own_.resize(size);
    return own_.data();
  }
  bool has_all() const { return all_rows_ > 0; }
  const float* all(int64_t row) const { return all_ + row * stride_; }

  void add_spikes(const int32_t* index, int64_t count) {
    std::copy_n(index, count, room(index_, count));
    rows_.push_back({used_, count, true});
    used_ += count;
  }

  void add(const float* x, int64_t inputs) {
    int32_t* index = room(index_, inputs + Events::kRoom);
    bool ones = true;
    const int64_t count = read(x, inputs, index, ones);
    if (!ones) {
      float* value = room(value_, count);
      for (int64_t e = 0; e < count; e++) value[e] = x[index[e]];
    }
    rows_.push_back({used_, count, ones});
    used_ += count;
  }

  int64_t size() const { return has_all() ? all_rows_ : static_cast<int64_t>(rows_.size()); }
  int64_t events() const { return used_; }  // of all rows

  FloatRow row(int64_t row) const {
    const Entry& entry = rows_[row];
    return {index_.data() + entry.begin, entry.ones ? nullptr : value_.data() + entry.begin,
            entry.count};
  }

 private:
  struct Entry {
    int64_t begin, count;
    bool ones;
  };

  // The end of an array, grown for `count` more. Rows of ones leave a gap in the values.
  template <class T>
  T* room(std::vector<T>& values, int64_t count) const {
    const size_t least = static_cast<size_t>(used_ + count);
    if (values.size() < least) values.resize(least + least / 2);
    return values.data() + used_;
  }

  // Writes the indices of the inputs that are not zero, and up to Events::kRoom numbers more.
  static int64_t read(const float* x, int64_t inputs, int32_t* index, bool& ones) {
#if defined(SYNAPSE_X86)
    static const int level = instruction_level();
    if (level >= 4) return read_512(x, inputs, index, ones);
    if (level >= 3) return read_256(x, inputs, index, ones);
#endif
    return rest(x, 0, inputs, index, 0, ones);
  }

  static SYNAPSE_INLINE int64_t rest(const float* x, int64_t from, int64_t inputs, int32_t* index,
                                     int64_t count, bool& ones) {
    for (int64_t c = from; c < inputs; c++) {
      index[count] = static_cast<int32_t>(c);
      count += x[c] != 0.0f;
      ones &= (x[c] == 0.0f) | (x[c] == 1.0f);
    }
    return count;
  }

#if defined(SYNAPSE_X86)
  static SYNAPSE_AVX512 int64_t read_512(const float* x, int64_t inputs, int32_t* index,
                                         bool& ones) {
    const __m512 zero = _mm512_setzero_ps(), one = _mm512_set1_ps(1.0f);
    const __m512i sixteen = _mm512_set1_epi32(16);
    __m512i at = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    int64_t c = 0, count = 0;
    unsigned others = 0;
    for (; c + 16 <= inputs; c += 16) {
      const __m512 values = _mm512_loadu_ps(x + c);
      const __mmask16 some = _mm512_cmp_ps_mask(values, zero, _CMP_NEQ_UQ);
      others |= some ^ _mm512_cmp_ps_mask(values, one, _CMP_EQ_OQ);
      _mm512_storeu_si512(index + count, _mm512_maskz_compress_epi32(some, at));
      count += __builtin_popcount(some);
      at = _mm512_add_epi32(at, sixteen);
    }
    ones = others == 0;
    return rest(x, c, inputs, index, count, ones);
  }

  static SYNAPSE_AVX2 int64_t read_256(const float* x, int64_t inputs, int32_t* index, bool& ones) {
    const __m256 zero = _mm256_setzero_ps(), one = _mm256_set1_ps(1.0f);
    int64_t c = 0, count = 0;
    int others = 0;
    for (; c + 8 <= inputs; c += 8) {
      const __m256 values = _mm256_loadu_ps(x + c);
      const int some = _mm256_movemask_ps(_mm256_cmp_ps(values, zero, _CMP_NEQ_UQ));
      others |= some ^ _mm256_movemask_ps(_mm256_cmp_ps(values, one, _CMP_EQ_OQ));
      count += write_set_bits(static_cast<unsigned>(some), static_cast<int32_t>(c), index + count);
    }
    ones = others == 0;
    return rest(x, c, inputs, index, count, ones);
  }
#endif

  std::vector<Entry> rows_;
  std::vector<int32_t> index_;
  std::vector<float> value_;
  int64_t used_ = 0;

  const float* all_ = nullptr;
  int64_t stride_ = 0, all_rows_ = 0;
  std::vector<float> own_;
};

// How many of some numbers are not zero.
struct CountEvents {
  SYNAPSE_CLONES static int64_t run(const float* x, int64_t size) {
    int64_t total = 0;
    for (int64_t first = 0; first < size; first += 1 << 20) {
      const int64_t last = std::min<int64_t>(size, first + (1 << 20));
      int32_t count = 0;
      for (int64_t i = first; i < last; i++) count += x[i] != 0.0f;
      total += count;
    }
    return total;
  }
};

}  // namespace synapse
