// Arrays that begin with a cache line: vector loads that cross a line take twice the time.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

namespace synapse {

template <class T>
class AlignedVector {
 public:
  AlignedVector() = default;
  explicit AlignedVector(int64_t count, T value = T(0))
      : lines_(static_cast<size_t>((count + kPerLine - 1) / kPerLine)), count_(count) {
    std::fill_n(data(), count_, value);
  }
  T* data() { return lines_.empty() ? nullptr : lines_.data()->values; }
  const T* data() const { return lines_.empty() ? nullptr : lines_.data()->values; }
  int64_t size() const { return count_; }

 private:
  static constexpr int64_t kPerLine = 64 / static_cast<int64_t>(sizeof(T));
  struct alignas(64) Line {
    T values[kPerLine];
  };
  std::vector<Line> lines_;
  int64_t count_ = 0;
};

}  // namespace synapse
