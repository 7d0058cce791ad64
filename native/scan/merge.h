// Two operators in one loop, where the result of the first is read by the second alone: its value
// is never stored. Each rounds as it does alone, so that results do not change.
#pragma once

#include <algorithm>
#include <cstdint>
#include <string>
#include <vector>

#include "scan/functions.h"
#include "scan/program.h"
#include "scan/shapes.h"

namespace synapse {

namespace merged {

// A comparison whose result is cast to a float: a spike.
template <class Compare>
struct ToFloat {
  template <class Y>
  SYNAPSE_INLINE static Y of(float a, float b) {
    return Compare::template of<Flag>(a, b).value ? 1.0f : 0.0f;
  }
};

// The outer operator reads the inner one in the place of its first or its second input.
template <class Outer, class Inner>
struct First {
  template <class Y>
  SYNAPSE_INLINE static Y of(float a, float b, float c) {
    return Outer::template of<Y>(Inner::template of<float>(a, b), c);
  }
};
template <class Outer, class Inner>
struct Second {
  template <class Y>
  SYNAPSE_INLINE static Y of(float a, float b, float c) {
    return Outer::template of<Y>(c, Inner::template of<float>(a, b));
  }
};

// Both inputs of the outer operator are products.
template <class Outer>
struct OfProducts {
  template <class Y>
  SYNAPSE_INLINE static Y of(float a, float b, float c, float d) {
    return Outer::template of<Y>(a * b, c * d);
  }
};

// A choice by a comparison.
template <class Compare>
struct WhereOf {
  template <class Y>
  SYNAPSE_INLINE static Y of(float a, float b, float c, float d) {
    return Compare::template of<Flag>(a, b).value != 0 ? c : d;
  }
};

}  // namespace merged

// One loop of a step: an operator of the program, or several.
struct Step {
  std::string name;  // with the letters of the inputs, as "Mul:ff"; of several: empty
  BlockFunction run;
  std::vector<int> operands;
  int value;  // what it computes
};

class MergedTable {
 public:
  // The loop of an operator that reads the result of another one as its input `slot`, and its
  // inputs before its own; null where there is none.
  static const Step* find(const std::string& outer, size_t slot, const std::string& inner) {
    static const MergedTable table;
    const std::string key = outer + " " + std::to_string(slot) + " " + inner;
    for (const auto& [name, step] : table.found_)
      if (name == key) return &step;
    return nullptr;
  }

 private:
  using Rows = std::vector<std::pair<std::string, Step>>;

  MergedTable() {
    using namespace elementwise;
    compare<Greater>("Greater"), compare<GreaterOrEqual>("GreaterOrEqual");
    compare<Less>("Less"), compare<LessOrEqual>("LessOrEqual");
    inner<Add>("Add:ff"), inner<Sub>("Sub:ff"), inner<Mul>("Mul:ff"), inner<Max>("Max:ff");
    inner<merged::ToFloat<Greater>>("GreaterToFloat:ff");
    inner<merged::ToFloat<GreaterOrEqual>>("GreaterOrEqualToFloat:ff");
    using Sum = merged::OfProducts<Add>;
    using Difference = merged::OfProducts<Sub>;
    add("Add:ff 2 Mul:ff", "", OfFour<Sum, float, float, float, float, float>::run);
    add("Sub:ff 2 Mul:ff", "", OfFour<Difference, float, float, float, float, float>::run);
  }

  void add(const std::string& key, const std::string& name, BlockFunction run) {
    found_.push_back({key, {name, run, {}, 0}});
  }

  template <class F>
  void compare(const std::string& name) {
    using namespace elementwise;
    add("CastToFloat:b 0 " + name + ":ff", name + "ToFloat:ff",
        OfTwo<merged::ToFloat<F>, float, float, float>::run);
    add("Where:bff 0 " + name + ":ff", "",
        OfFour<merged::WhereOf<F>, float, float, float, float, float>::run);
  }

  template <class Inner>
  void inner(const std::string& name) {
    using namespace elementwise;
    outer<Add, Inner>("Add:ff", name), outer<Mul, Inner>("Mul:ff", name);
    outer<Sub, Inner>("Sub:ff", name), outer<Min, Inner>("Min:ff", name);
    outer<merged::ToFloat<Greater>, Inner>("GreaterToFloat:ff", name);
    outer<merged::ToFloat<GreaterOrEqual>, Inner>("GreaterOrEqualToFloat:ff", name);
  }

  template <class Outer, class Inner>
  void outer(const std::string& name, const std::string& inner) {
    using First = merged::First<Outer, Inner>;
    using Second = merged::Second<Outer, Inner>;
    add(name + " 0 " + inner, "", OfThree<First, float, float, float, float>::run);
    add(name + " 1 " + inner, "", OfThree<Second, float, float, float, float>::run);
  }

  Rows found_;
};

// Joins operators into the loops of a step. `once` tells of each value whether it is computed
// before all steps.
class Merger {
 public:
  Merger(const Program& program, const std::vector<Shape>& shapes, const std::vector<bool>& once)
      : program_(program), shapes_(shapes), once_(once), uses_(program.values(), 0) {
    for (const auto& op : program.operators)
      for (const int operand : op.operands) uses_[operand]++;
    for (const int result : program.results) uses_[result] += 2;  // it has to be stored
    for (size_t k = 0; k < program.operators.size(); k++) {
      const auto& op = program.operators[k];
      Step step{op.function->name + ":" + op.function->inputs, op.function->run, op.operands,
                program.inputs + static_cast<int>(k)};
      if (!once[step.value]) {
        merge_products(step);
        for (size_t slot = 0; slot < step.operands.size() && !step.name.empty(); slot++)
          merge(step, slot);
      }
      steps_.push_back(std::move(step));
    }
    for (const Step& step : steps_)
      if (step.run != nullptr) steps.push_back(step);
  }

  std::vector<Step> steps;  // in the order of the program

 private:
  // The step of an operand that may go into the step which reads it; null where it may not.
  Step* absorbable(const Step& step, int operand) {
    const int k = operand - program_.inputs;
    if (k < 0 || uses_[operand] != 1 || once_[operand] || shapes_[operand] != shapes_[step.value])
      return nullptr;
    return steps_[k].name.empty() ? nullptr : &steps_[k];
  }

  void merge(Step& step, size_t slot) {
    Step* inner = absorbable(step, step.operands[slot]);
    if (inner == nullptr) return;
    const Step* both = MergedTable::find(step.name, slot, inner->name);
    if (both == nullptr) return;
    std::vector<int> operands = inner->operands;
    for (size_t i = 0; i < step.operands.size(); i++)
      if (i != slot) operands.push_back(step.operands[i]);
    inner->run = nullptr, inner->name.clear();
    step = {both->name, both->run, std::move(operands), step.value};
  }

  void merge_products(Step& step) {
    if (step.operands.size() != 2) return;
    Step *a = absorbable(step, step.operands[0]), *b = absorbable(step, step.operands[1]);
    if (a == nullptr || b == nullptr || a->name != b->name) return;
    const Step* all = MergedTable::find(step.name, 2, a->name);
    if (all == nullptr) return;
    std::vector<int> operands = a->operands;
    operands.insert(operands.end(), b->operands.begin(), b->operands.end());
    for (Step* inner : {a, b}) inner->run = nullptr, inner->name.clear();
    step = {all->name, all->run, std::move(operands), step.value};
  }

  const Program& program_;
  const std::vector<Shape>& shapes_;
  const std::vector<bool>& once_;
  std::vector<int> uses_;
  std::vector<Step> steps_;  // of each operator; without a loop where another has taken it
};

}  // namespace synapse
