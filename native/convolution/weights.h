// The sizes of a convolution, and its weights, laid out for events.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "base/call.h"
#include "base/memory.h"
#include "base/window.h"

namespace synapse {

// The sizes of one call.
struct ConvGeometry : Window {
  bool transposed;
  int64_t batch, channels;  // of the input; the batch is time steps times samples
  int64_t outputs, groups;  // output channels of one part, and groups of channels

  int64_t positions() const { return out_height * out_width; }
};

// The attributes of ONNX Runtime's own Conv or ConvTranspose, which copies their values.
inline std::vector<Ort::OpAttr> window_attributes(const WindowAttributes& window, int64_t group) {
  std::vector<Ort::OpAttr> all;
  const auto add = [&](const char* name, const std::vector<int64_t>& values) {
    all.emplace_back(name, values.data(), static_cast<int>(values.size()), ORT_OP_ATTR_INTS);
  };
  add("strides", window.strides);
  add("pads", window.pads);
  add("dilations", window.dilations);
  all.emplace_back("group", &group, 1, ORT_OP_ATTR_INT);
  return all;
}

constexpr int kOutputBlock = 16;  // output channels are padded to whole blocks of this size

// Weights (O, C / groups, h, w, 1), or transposed (C, O / groups, h, w, 1), of all parts as
// [channel][row][column][part][output channel of the group], the last two padded together. Rows and
// columns are in the order of the outputs that an input reaches: those of a plain convolution,
// which correlates, are reversed.
//
// Weights are kept in 16 bits even where the file has bytes, so that sums in 16 bits need no
// conversion.
struct ConvWeights {
  Shape shape;
  AlignedVector<int16_t> rows;
  std::vector<std::vector<float>> floats;  // in the file's order, for inputs that are no integers
  int64_t channels = 0, outputs = 0, height = 0, width = 0;
  int64_t group_outputs = 0;                 // output channels of a group, of one part
  int64_t padded = 0, row = 0, channel = 0;  // length of one pixel, of a row, and of a channel
  int64_t largest_sum = 0;  // the largest sum of magnitudes of the weights that meet at an output
  bool bytes = true;        // all weights fit 8 bits

  ConvWeights(const std::vector<Input>& weights, int64_t groups, const WindowAttributes& attributes,
              bool transposed)
      : shape(weights[0].shape), floats(weights.size()) {
    for (const Input& weight : weights) {
      if (weight.shape.size() != 5 || weight.shape[4] != 1)
        throw CallError("a weight needs the axes ",
                        transposed ? "(C, O, h, w, 1)" : "(O, C, h, w, 1)", ", got ", weight.shape);
      if (weight.shape != shape)
        throw CallError("both weights need one shape, got ", shape, " and ", weight.shape);
      bytes = bytes && weight.type != ONNX_TENSOR_ELEMENT_DATA_TYPE_INT16;
    }
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
    rows = AlignedVector<int16_t>(channels * channel);
    const auto phases = [&](int64_t size, size_t axis) {
      return phases_of(size, transposed ? attributes.strides[axis] : 1, attributes.dilations[axis]);
    };
    const std::vector<int64_t> down = phases(height, 0), across = phases(width, 1);
    for (int64_t p = 0; p < parts; p++) {
      const Input& weight = weights[p];
      std::vector<float>& values = floats[p];
      values.resize(weight.size);
      // sums of magnitudes by output channel and phase: only weights of one phase meet at an output
      std::vector<int64_t> sums(outputs * height * width);
      const int64_t fan = shape[1];
      for (int64_t i = 0; i < weight.size; i++) {
        const int64_t x = i % width, y = i / width % height;
        const int64_t second = i / (width * height) % fan, first = i / (width * height * fan);
        const int64_t each = transposed ? channels / groups : group_outputs;
        const int64_t group = first / each;
        const int64_t c = transposed ? first : group * fan + second;
        const int64_t o = transposed ? second : first % each;
        const int64_t at_y = transposed ? y : height - 1 - y, at_x = transposed ? x : width - 1 - x;
        const int32_t value = integer_weight(weight, i);
        rows.data()[c * channel + at_y * row + at_x * padded + p * group_outputs + o] =
            static_cast<int16_t>(value);
        values[i] = static_cast<float>(value);
        const int64_t phase = down[y] * width + across[x];
        int64_t& sum = sums[(group * group_outputs + o) * height * width + phase];
        sum += value < 0 ? -value : value;
        largest_sum = std::max(largest_sum, sum);
      }
    }
  }

 private:
  // The phase of every weight along an axis, named by its first weight. A transposed convolution
  // with stride s reaches output i * s + k * dilation - pad, so weights k and l can meet at an
  // output only if (k - l) * dilation is a multiple of s. Example: 3 weights with stride 2 have the
  // phases 0, 1, 0, and at most two of them meet.
  static std::vector<int64_t> phases_of(int64_t size, int64_t stride, int64_t dilation) {
    std::vector<int64_t> phases(size);
    for (int64_t k = 0; k < size; k++)
      while ((k - phases[k]) * dilation % stride != 0) phases[k]++;
    return phases;
  }
};

}  // namespace synapse
