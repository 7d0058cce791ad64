// How a program runs on tensors of certain shapes: what is computed where, in which memory.
//
// The elements of the largest shape are parted into blocks. A block passes through all steps with
// its values in a few buffers that stay in the first-level cache; a buffer is used again when its
// value is read no more. Values of other shapes, such as a number for all neurons, are computed
// whole for every block, and repeated where an operator reads them together with a block.
//
//  - What depends on no state and no sequence is computed once for a block.
//  - A sequence is read where it is, and a sequence of results is written where it will be.
//  - The next state is written over the last one if no later operator reads that; the memory is
//    that of the output. If it is in memory that stays, the state is read there in the next step.
#pragma once

#include <algorithm>
#include <cstdint>
#include <limits>
#include <map>
#include <utility>
#include <vector>

#include "base/call.h"
#include "scan/merge.h"
#include "scan/program.h"
#include "scan/shapes.h"

namespace synapse {

class Plan {
 public:
  // Where a value lies. The first places are those of the values of the program.
  enum class Kind {
    given,      // a captured tensor
    row,        // a step of a sequence, or of an output
    state,      // changes from step to step
    home,       // written over the last state
    kept,       // a buffer that is written once for a block
    temporary,  // a buffer that is used again
  };
  struct Place {
    Kind kind;
    int shape;      // number of its shape
    int64_t width;  // bytes of an element
    // of a buffer: bytes before it, for each element of a block where the shape is the main one
    int64_t offset = -1;
  };
  struct Work {
    BlockFunction run;
    int places[1 + kMostInputs];  // of what it computes, and of what it reads
    int inputs, shape;
  };
  struct Row {  // a step of a tensor over time
    int place, tensor;
    bool output;
  };
  struct Index {  // places of elements that are repeated
    int place, from;
  };
  struct Copy {  // of a place, to an output or to the memory of a state
    int place, to;
    int staged = -1;  // copied to this place first
  };

  struct Move {  // the state of the next step lies there
    int state, place;
  };

  std::vector<Shape> shapes;  // of each value
  std::vector<Shape> kinds;   // different shapes, without first axes of size 1
  std::vector<int64_t> sizes;
  int main = 0;  // number of the shape that is parted into blocks

  std::vector<Place> places;
  std::vector<Work> before, body;  // once, and in every step
  std::vector<Row> rows;
  std::vector<Index> indices;
  std::vector<Copy> outputs;  // copies of a step to a sequence
  std::vector<Copy> nexts;    // copies of a step to a state
  std::vector<Move> moves;
  std::vector<int> homes;    // the place of each state's own memory
  std::vector<int> widened;  // place of each bool input in a block; -1 for others
  int64_t block = 0;         // elements of a block
  int64_t bytes = 0;         // of all buffers

  Plan(const Program& program, const std::vector<Shape>& inputs) : program_(program) {
    find_shapes(inputs);
    for (int v = 0; v < program.values(); v++) {
      const Kind kind = v >= program.inputs      ? Kind::temporary
                        : program.is_state(v)    ? Kind::state
                        : program.is_sequence(v) ? Kind::row
                                                 : Kind::given;
      places.push_back({kind, kind_of(v), width_of(program.types[v])});
    }
    widened.assign(program.inputs, -1);
    for (int s = 0; s < program.states; s++)
      homes.push_back(add_place(Kind::kept, places[s].shape, places[s].width));
    for (int v = program.states; v < program.states + program.sequences; v++)
      rows.push_back({v, v, false});
    schedule();
    find_uses();
    place_outputs();
    place_states();
    allocate();
  }

  bool is_main(int place) const { return places[place].shape == main; }
  // Whether the memory of a state is that of the output.
  bool lives_in_output(int state) const {
    return places[state].shape == main && program_.types[state] != 'b';
  }

 private:
  static constexpr int64_t kCache = 24 << 10;          // bytes of the first-level cache for a block
  static constexpr int64_t kLeast = 64, kMost = 1024;  // elements of a block
  static constexpr int kNever = -1, kAlways = std::numeric_limits<int>::max();

  void find_shapes(const std::vector<Shape>& inputs) {
    shapes = inputs;
    for (const auto& op : program_.operators) {
      Shape shape = shapes[op.operands[0]];
      for (const int operand : op.operands) shape = broadcast(shape, shapes[operand]);
      shapes.push_back(shape);
    }
    for (int s = 0; s < program_.states; s++)
      if (shapes[program_.results[s]] != shapes[s])
        throw CallError("a state changes its shape from ", shapes[s], " to ",
                        shapes[program_.results[s]]);
    for (int v = 0; v < program_.values(); v++) {
      const Shape kind = without_ones(shapes[v]);
      if (std::find(kinds.begin(), kinds.end(), kind) != kinds.end()) continue;
      kinds.push_back(kind);
      sizes.push_back(product(kind));
      if (sizes.back() > std::numeric_limits<int32_t>::max())
        throw CallError("a tensor of shape ", kind, " is too large");
    }
    const auto most = std::max_element(sizes.begin(), sizes.end());
    main = static_cast<int>(most - sizes.begin());
    for (size_t k = 0; k < kinds.size(); k++)  // with an axis of size 0 it is not the largest
      if (std::all_of(kinds.begin(), kinds.end(),
                      [&](const Shape& other) { return broadcasts_to(other, kinds[k]); }))
        main = static_cast<int>(k);
  }

  int kind_of(int value) const {
    return static_cast<int>(std::find(kinds.begin(), kinds.end(), without_ones(shapes[value])) -
                            kinds.begin());
  }

  int add_place(Kind kind, int shape, int64_t width) {
    places.push_back({kind, shape, width});
    return static_cast<int>(places.size()) - 1;
  }

  // -- what is computed ----------------------------------------------------------------------

  // Lists the work of a step and that before all steps.
  void schedule() {
    std::vector<bool> once(program_.values(), false);  // depends on no state and no sequence
    for (int v = program_.states + program_.sequences; v < program_.values(); v++) {
      once[v] = true;
      if (v >= program_.inputs)
        for (const int operand : program_.operators[v - program_.inputs].operands)
          once[v] = once[v] && once[operand];
    }
    std::map<std::pair<int, int>, int> repeated, index;
    for (const Step& step : Merger(program_, shapes, once).steps) {
      const int y = step.value, shape = places[y].shape;
      std::vector<int> from;
      for (const int value : step.operands) {
        int place = in_block(value, once[value]);
        if (places[place].shape != shape) {
          const auto known = repeated.find({value, shape});
          place = known != repeated.end()
                      ? known->second
                      : repeated[{value, shape}] = repeat(place, shape, once[value], index);
        }
        from.push_back(place);
      }
      if (once[y]) places[y].kind = Kind::kept;
      add_work(once[y], step.run, y, from);
    }
    for (const int value : program_.results) in_block(value, once[value]);
  }

  void add_work(bool once, BlockFunction run, int y, const std::vector<int>& from) {
    Work work{run, {y}, static_cast<int>(from.size()), places[y].shape};
    std::copy(from.begin(), from.end(), work.places + 1);
    (once ? before : body).push_back(work);
  }

  // The place of a value within a block: bools of inputs are widened.
  int in_block(int value, bool once) {
    if (value >= program_.inputs || program_.types[value] != 'b' || program_.is_state(value))
      return value;
    if (widened[value] < 0) {
      widened[value] = add_place(once ? Kind::kept : Kind::temporary, places[value].shape, 4);
      add_work(once, widen, widened[value], {value});
    }
    return widened[value];
  }

  // A value that is repeated to another shape.
  int repeat(int from, int shape, bool once, std::map<std::pair<int, int>, int>& index) {
    const Place source = places[from];
    const int y = add_place(once ? Kind::kept : Kind::temporary, shape, source.width);
    if (sizes[source.shape] == 1) {
      add_work(once, source.width == 8 ? fill<int64_t> : fill<int32_t>, y, {from});
      return y;
    }
    const std::pair<int, int> key{source.shape, shape};
    if (index.count(key) == 0) {
      index[key] = add_place(Kind::kept, shape, 4);
      indices.push_back({index[key], source.shape});
    }
    add_work(once, source.width == 8 ? Gather<int64_t>::run : Gather<int32_t>::run, y,
             {from, index[key]});
    return y;
  }

  // -- where it lies -------------------------------------------------------------------------

  // Finds the work that writes each place, and the last that reads it.
  void find_uses() {
    written_.assign(places.size(), kNever);
    read_.assign(places.size(), kNever);
    for (size_t i = 0; i < body.size(); i++) {
      const Work& work = body[i];
      for (int k = 1; k <= work.inputs; k++) read_[work.places[k]] = static_cast<int>(i);
      written_[work.places[0]] = static_cast<int>(i);
    }
    for (const int value : program_.results) read_[source(value)] = kAlways;
  }

  int source(int value) const {
    return value < program_.inputs && widened[value] >= 0 ? widened[value] : value;
  }

  bool is_result(int place) const {
    return place >= program_.inputs && place < program_.values() &&
           places[place].kind == Kind::temporary;
  }

  void place_outputs() {
    for (size_t k = program_.states; k < program_.results.size(); k++) {
      const int value = program_.results[k], output = static_cast<int>(k);
      if (is_result(value) && is_main(value) && program_.types[value] != 'b') {
        places[value].kind = Kind::row;
        rows.push_back({value, output, true});
      } else {
        outputs.push_back({source(value), output});
      }
    }
  }

  void place_states() {
    for (int s = 0; s < program_.states; s++) {
      const int next = source(program_.results[s]);
      const Kind kind = places[next].kind;
      if (next == s) continue;
      if (is_result(next) && read_[s] <= written_[next]) {
        places[next].kind = Kind::home;
        places[next].offset = s;
        moves.push_back({s, homes[s]});
      } else if (kind == Kind::given || kind == Kind::row || kind == Kind::kept) {
        moves.push_back({s, next});
      } else {
        int staged = -1;
        if (kind == Kind::state) staged = add_place(Kind::kept, places[s].shape, places[s].width);
        nexts.push_back({next, s, staged});
        moves.push_back({s, homes[s]});
      }
    }
  }

  void allocate() {
    // in every step a buffer is free again behind the last work that reads it
    std::map<int64_t, std::vector<int64_t>> free;  // width -> offsets
    int64_t wide = 0;                              // bytes for an element of a block
    std::vector<bool> released(places.size(), false);
    const auto take = [&](int p) {
      auto& list = free[places[p].width];
      if (list.empty()) {
        list.push_back(wide);
        wide += places[p].width;
      }
      places[p].offset = list.back();
      list.pop_back();
    };
    const auto release = [&](int p) {
      if (places[p].kind != Kind::temporary || !is_main(p) || released[p]) return;
      released[p] = true;
      free[places[p].width].push_back(places[p].offset);
    };
    for (size_t i = 0; i < body.size(); i++) {
      const Work& work = body[i];
      for (int k = 1; k <= work.inputs; k++)
        if (read_[work.places[k]] == static_cast<int>(i)) release(work.places[k]);
      const int y = work.places[0];
      if (places[y].kind == Kind::temporary && is_main(y)) take(y);
      if (read_[y] == kNever) release(y);
    }
    for (size_t p = 0; p < places.size(); p++)
      if (places[p].kind == Kind::kept && is_main(p) && !in_output(p)) {
        places[p].offset = wide;
        wide += places[p].width;
      }
    choose_block(wide);
    bytes = wide * block;
    for (size_t p = 0; p < places.size(); p++) {
      const Kind kind = places[p].kind;
      if ((kind != Kind::kept && kind != Kind::temporary) || is_main(p)) continue;
      places[p].offset = bytes;
      bytes += (sizes[places[p].shape] * places[p].width + 63) / 64 * 64;
    }
  }

  bool in_output(size_t place) const {
    for (int s = 0; s < program_.states; s++)
      if (homes[s] == static_cast<int>(place)) return lives_in_output(s);
    return false;
  }

  void choose_block(int64_t wide) {
    int64_t each = wide;  // bytes of an element: buffers, states, and what is read and written
    for (int s = 0; s < program_.states; s++) each += places[s].width;
    for (const Row& row : rows) each += places[row.place].width;
    const int64_t elements = sizes[main];
    int64_t size = std::min(std::max(kCache / each / kLeast * kLeast, kLeast), kMost);
    // at least four blocks where there are enough elements for several threads
    size = std::min(size, std::max((elements / 4 + kLeast - 1) / kLeast * kLeast, kLeast));
    // what has another shape is computed again for each block
    int64_t others = 0;
    for (const Work& work : body) others += work.shape == main ? 0 : sizes[work.shape];
    if (others * (elements / size) > elements) size = std::max<int64_t>(elements, 1);
    const int64_t count = std::max<int64_t>((elements + size - 1) / size, 1);
    block = ((elements + count - 1) / count + kLeast - 1) / kLeast * kLeast;
    block = std::max(block, kLeast);
  }

  const Program& program_;
  std::vector<int> written_, read_;  // of each place: the work in a step
};

}  // namespace synapse
