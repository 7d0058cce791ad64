// Memory of kernels: arrays that begin with a cache line, and scratch memory kept between calls.
#pragma once

#include <algorithm>
#include <cstdint>
#include <memory>
#include <mutex>
#include <utility>
#include <vector>

namespace synapse {

// An array that begins with a cache line: vector loads that cross a line take twice the time.
template <class T>
class AlignedVector {
 public:
  AlignedVector() = default;
  explicit AlignedVector(int64_t count, T value = T(0))
      : lines_((count + kPerLine - 1) / kPerLine), count_(count) {
    std::fill_n(data(), count_, value);
  }
  T* data() { return reinterpret_cast<T*>(lines_.data()); }
  const T* data() const { return reinterpret_cast<const T*>(lines_.data()); }
  int64_t size() const { return count_; }

 private:
  static constexpr int64_t kPerLine = 64 / static_cast<int64_t>(sizeof(T));
  struct alignas(64) Line {
    T values[kPerLine];
  };
  std::vector<Line> lines_;
  int64_t count_ = 0;
};

// Scratch memory that is kept between calls and shared by threads. Pages fresh from the system cost
// more than most of the work done on them: they took a third of the time of a small convolution.
template <class T>
class ScratchPool {
 public:
  struct Return {
    ScratchPool* pool;
    void operator()(T* scratch) const {
      const std::lock_guard<std::mutex> lock(pool->mutex_);
      pool->free_.emplace_back(scratch);
    }
  };
  using Loan = std::unique_ptr<T, Return>;  // goes back to the pool when it ends

  // Scratch memory for which `fits` holds: a free one, or else a new one by `make`.
  template <class Fits, class Make>
  Loan borrow(const Fits& fits, const Make& make) {
    std::unique_ptr<T> scratch;
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      if (!free_.empty()) {
        scratch = std::move(free_.back());
        free_.pop_back();
      }
    }
    if (!scratch || !fits(*scratch)) scratch = make();
    return Loan(scratch.release(), Return{this});
  }

 private:
  std::mutex mutex_;
  std::vector<std::unique_ptr<T>> free_;
};

}  // namespace synapse
