// Takes the blocks of a plan through all steps.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <vector>

#include "base/call.h"
#include "base/memory.h"
#include "scan/plan.h"
#include "scan/program.h"

namespace synapse {

// The tensors of a call.
struct ScanCall {
  std::vector<const void*> inputs;
  std::vector<void*> outputs;
  int64_t steps;
};

// The memory of a block, which is kept from call to call.
struct BlockMemory {
  struct Row {
    char* at;      // this step's
    int64_t step;  // bytes to the next one
  };

  AlignedVector<char> buffers;
  std::vector<void*> pointers;  // to what is at each place
  std::vector<int64_t> counts;  // elements of each shape
  std::vector<Row> rows;
};

class BlockRun {
 public:
  BlockRun(const Program& program, const Plan& plan, const ScanCall& call, BlockMemory& memory,
           int64_t first, int64_t count)
      : program_(program), plan_(plan), call_(call), first_(first) {
    memory.counts = plan.sizes;
    memory.counts[plan.main] = count;
    counts_ = memory.counts.data();
    memory.pointers.assign(plan.places.size(), nullptr);
    at_ = memory.pointers.data();
    point(memory.buffers.data());
    memory.rows.clear();
    for (const Plan::Row& row : plan.rows) memory.rows.push_back(first_row(row));
    rows_ = memory.rows.data();
  }

  void run() {
    for (const Plan::Index& index : plan_.indices) {
      const int to = plan_.places[index.place].shape;
      find_places(plan_.kinds[index.from], plan_.kinds[to], to == plan_.main ? first_ : 0,
                  counts_[to], static_cast<int32_t*>(at_[index.place]));
    }
    compute(plan_.before);
    for (int s = 0; s < program_.states; s++) {
      if (program_.types[s] != 'b') continue;
      const int places[] = {plan_.homes[s], s};
      widen(at_, places, count_of(s));
      at_[s] = at_[plan_.homes[s]];
    }
    for (int64_t t = 0; t < call_.steps; t++) {
      for (size_t r = 0; r < plan_.rows.size(); r++) {
        at_[plan_.rows[r].place] = rows_[r].at;
        rows_[r].at += rows_[r].step;
      }
      compute(plan_.body);
      for (const Plan::Copy& copy : plan_.outputs) store(copy.place, copy.to, t);
      next_states();
    }
    for (int s = 0; s < program_.states; s++)
      if (!plan_.lives_in_output(s) || at_[s] != at_[plan_.homes[s]]) store(s, s, 0);
  }

 private:
  // Lets the places point to what does not change from step to step.
  void point(char* buffers) {
    for (size_t p = 0; p < plan_.places.size(); p++) {
      const Plan::Place& place = plan_.places[p];
      if (place.kind != Plan::Kind::kept && place.kind != Plan::Kind::temporary) continue;
      if (place.offset >= 0)  // else in the memory of an output
        at_[p] = buffers + place.offset * (plan_.is_main(p) ? plan_.block : 1);
    }
    for (int v = 0; v < program_.inputs; v++)
      if (!program_.is_sequence(v))
        at_[v] = of_block(const_cast<void*>(call_.inputs[v]), v, program_.types[v]);
    for (int s = 0; s < program_.states; s++)
      if (plan_.lives_in_output(s))
        at_[plan_.homes[s]] = of_block(call_.outputs[s], s, program_.types[s]);
    for (size_t p = 0; p < plan_.places.size(); p++)
      if (plan_.places[p].kind == Plan::Kind::home)
        at_[p] = at_[plan_.homes[plan_.places[p].offset]];
  }

  // The part of a tensor that belongs to the block, where it is parted.
  char* of_block(void* tensor, int place, char type) const {
    return static_cast<char*>(tensor) + (plan_.is_main(place) ? first_ * stored_width_of(type) : 0);
  }

  BlockMemory::Row first_row(const Plan::Row& row) const {
    void* const tensor =
        row.output ? call_.outputs[row.tensor] : const_cast<void*>(call_.inputs[row.tensor]);
    const char type = program_.types[row.place];
    return {of_block(tensor, row.place, type),
            plan_.sizes[plan_.places[row.place].shape] * stored_width_of(type)};
  }

  int64_t count_of(int place) const { return counts_[plan_.places[place].shape]; }

  void compute(const std::vector<Plan::Work>& works) const {
    for (const Plan::Work& work : works) work.run(at_, work.places, counts_[work.shape]);
  }

  // Copies a value to the step t of an output. What has no part in a block is written by the first.
  void store(int place, int output, int64_t t) const {
    const int shape = plan_.places[place].shape;
    if (shape != plan_.main && first_ > 0) return;
    const char type = program_.types[program_.results[output]];
    char* const to = of_block(call_.outputs[output], place, type) +
                     t * plan_.sizes[shape] * stored_width_of(type);
    if (type == 'b') {
      void* const ends[] = {to, at_[place]};
      const int places[] = {0, 1};
      narrow(ends, places, counts_[shape]);
    } else {
      copy(to, at_[place], counts_[shape] * width_of(type));
    }
  }

  static void copy(void* to, const void* from, int64_t bytes) {
    if (bytes > 0) std::memcpy(to, from, static_cast<size_t>(bytes));
  }

  void next_states() const {
    const auto bytes = [&](int s) { return count_of(s) * plan_.places[s].width; };
    for (const Plan::Copy& next : plan_.nexts)
      if (next.staged >= 0) copy(at_[next.staged], at_[next.place], bytes(next.to));
    for (const Plan::Copy& next : plan_.nexts)
      copy(at_[plan_.homes[next.to]], at_[next.staged >= 0 ? next.staged : next.place],
           bytes(next.to));
    for (const Plan::Move& move : plan_.moves) at_[move.state] = at_[move.place];
  }

  const Program& program_;
  const Plan& plan_;
  const ScanCall& call_;
  const int64_t first_;  // the block's first element
  const int64_t* counts_;
  void** at_;
  BlockMemory::Row* rows_;
};

}  // namespace synapse
