// Float weights of a convolution, laid out for events.
#pragma once

#include <cmath>
#include <cstdint>
#include <vector>

#include "base/call.h"
#include "base/memory.h"
#include "convolution/weights.h"

namespace synapse {

// Weights (O, C / groups, h, w) or (O, C / groups, h, w, 1), transposed (C, O / groups, ...), of
// all parts, in the order of ConvWeights.
struct FloatConvWeights {
  Shape shape;  // of four axes
  AlignedVector<float> rows;
  int64_t channels = 0, outputs = 0, height = 0, width = 0;
  int64_t group_outputs = 0;                 // output channels of a group, of one part
  int64_t padded = 0, row = 0, channel = 0;  // length of one pixel, of a row, and of a channel
  bool finite = true;  // no weight is infinite or NaN: such a weight times 0 is no 0

  // The sizes of weights; `lay_out` fills the rows.
  FloatConvWeights(const std::vector<Input>& weights, int64_t groups, bool transposed, bool lay_out)
      : shape(weights[0].shape) {
    const bool fits = shape.size() == 4 || (shape.size() == 5 && shape[4] == 1);
    if (!fits)
      throw CallError("a weight needs the axes ",
                      transposed ? "(C, O, h, w, 1)" : "(O, C, h, w, 1)", ", got ", shape);
    for (const Input& weight : weights) {
      if (weight.shape != shape)
        throw CallError("both weights need one shape, got ", shape, " and ", weight.shape);
      if (weight.type != kFloat) throw CallError("weights must be float32");
    }
    shape.resize(4);
    if (groups < 1 || shape[0] % groups != 0)
      throw CallError(shape[0], transposed ? " inputs" : " outputs", " do not part into ", groups,
                      " groups");
    channels = transposed ? shape[0] : shape[1] * groups;
    outputs = transposed ? shape[1] * groups : shape[0];
    height = shape[2];
    width = shape[3];
    group_outputs = outputs / groups;
    const int64_t parts = static_cast<int64_t>(weights.size());
    padded = (parts * group_outputs + kOutputBlock - 1) / kOutputBlock * kOutputBlock;
    row = width * padded;
    channel = height * row;
    if (!lay_out) return;
    rows = AlignedVector<float>(channels * channel);
    const int64_t fan = shape[1], area = height * width;
    for (int64_t p = 0; p < parts; p++) {
      for (int64_t i = 0; i < weights[p].size; i++) {
        const int64_t x = i % width, y = i / width % height;
        const int64_t second = i / area % fan, first = i / (area * fan);
        const int64_t c = transposed ? first : first / group_outputs * fan + second;
        const int64_t o = transposed ? second : first % group_outputs;
        const int64_t at_y = transposed ? y : height - 1 - y, at_x = transposed ? x : width - 1 - x;
        const float value = weights[p].as<float>()[i];
        finite = finite && std::isfinite(value);
        rows.data()[c * channel + at_y * row + at_x * padded + p * group_outputs + o] = value;
      }
    }
  }
};

}  // namespace synapse
