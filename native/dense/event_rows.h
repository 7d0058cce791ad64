// The events of several rows of inputs, read together so that the weights of one tile of outputs
// stay in a cache while all rows are summed.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

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

  const Entry& at(int64_t row) const { return rows_[static_cast<size_t>(row)]; }

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

}  // namespace synapse
