// Scratch memory that is kept between calls and shared by threads.
//
// Pages fresh from the system cost more than most of the work done on them: they took a third of
// the time of a small convolution.
#pragma once

#include <memory>
#include <mutex>
#include <utility>
#include <vector>

namespace synapse {

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
