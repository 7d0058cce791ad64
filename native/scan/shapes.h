// Shapes that broadcast to each other, as ONNX's elementwise operators do it.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "base/call.h"

namespace synapse {

// The size of an axis, counted from the last one; 1 for an axis that a shape does not have.
inline int64_t size_from_last(const Shape& shape, size_t axis) {
  return axis < shape.size() ? shape[shape.size() - 1 - axis] : 1;
}

// Whether values of a shape can be repeated to another one.
inline bool broadcasts_to(const Shape& shape, const Shape& to) {
  for (size_t axis = 0; axis < shape.size(); axis++) {
    const int64_t size = size_from_last(shape, axis);
    if (size != 1 && size != size_from_last(to, axis)) return false;
  }
  return true;
}

// The shape of an operator's result; throws where two shapes do not fit together.
inline Shape broadcast(const Shape& a, const Shape& b) {
  Shape out(std::max(a.size(), b.size()));
  for (size_t axis = 0; axis < out.size(); axis++) {
    const int64_t left = size_from_last(a, axis), right = size_from_last(b, axis);
    if (left != right && left != 1 && right != 1)
      throw CallError("shapes ", a, " and ", b, " do not fit together");
    out[out.size() - 1 - axis] = left == 1 ? right : left;
  }
  return out;
}

// A shape without its first axes of size 1, which change no place of an element.
inline Shape without_ones(const Shape& shape) {
  size_t ones = 0;
  while (ones < shape.size() && shape[ones] == 1) ones++;
  return {shape.begin() + ones, shape.end()};
}

// index[i] is the place in a tensor of the shape `from` of the element first + i of the shape `to`,
// to which it is repeated.
inline void find_places(const Shape& from, const Shape& to, int64_t first, int64_t count,
                        int32_t* index) {
  const size_t axes = to.size();
  std::vector<int64_t> stride(axes), at(axes);  // from the last axis on
  int64_t step = 1, place = 0, rest = first;
  for (size_t axis = 0; axis < axes; axis++) {
    const int64_t size = size_from_last(from, axis), wide = size_from_last(to, axis);
    stride[axis] = size == 1 ? 0 : step;
    step *= size;
    at[axis] = wide > 0 ? rest % wide : 0;
    rest = wide > 0 ? rest / wide : 0;
    place += at[axis] * stride[axis];
  }
  for (int64_t i = 0; i < count; i++) {
    index[i] = static_cast<int32_t>(place);
    for (size_t axis = 0; axis < axes; axis++) {
      place += stride[axis];
      if (++at[axis] < size_from_last(to, axis)) break;
      place -= stride[axis] * at[axis];
      at[axis] = 0;
    }
  }
}

}  // namespace synapse
