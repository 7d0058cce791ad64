// Strides, pads and dilations of convolutions and pools, and the size of the images that result.
#pragma once

#include <array>
#include <cstdint>
#include <vector>

#include "base/tensor.h"

namespace synapse {

// The output size along one axis: how often a kernel fits, or, transposed, how far the kernels of
// all inputs reach. Negative where there is no output.
inline int64_t output_size(int64_t size, int64_t pads, int64_t kernel, int64_t stride,
                           int64_t dilation, bool transposed) {
  const int64_t extent = dilation * (kernel - 1) + 1;
  if (transposed) {
    const int64_t out = (size - 1) * stride + extent - pads;
    return out < 1 ? -1 : out;
  }
  const int64_t room = size + pads - extent;
  return room < 0 ? -1 : room / stride + 1;
}

// The attributes strides, pads and dilations of a node, checked: strides are positive, so that no
// later division is by zero.
struct WindowAttributes {
  std::vector<int64_t> strides, pads, dilations;

  explicit WindowAttributes(const Ort::ConstKernelInfo& info)
      : strides(info.GetAttributes<int64_t>("strides")),
        pads(info.GetAttributes<int64_t>("pads")),
        dilations(info.GetAttributes<int64_t>("dilations")) {
    const auto at_least = [](const std::vector<int64_t>& values, int64_t bound) {
      for (const int64_t value : values)
        if (value < bound || value > INT32_MAX) return false;
      return true;
    };
    if (strides.size() != 2 || pads.size() != 4 || dilations.size() != 2)
      throw CallError("needs two strides, four pads and two dilations");
    if (!at_least(strides, 1) || !at_least(pads, 0) || !at_least(dilations, 1))
      throw CallError("strides and dilations must be at least 1, and pads at least 0");
  }

  // Height and width of the output for images (T, N, C, H, W) and a kernel (.., .., h, w, 1).
  std::array<int64_t, 2> output_image(const std::vector<int64_t>& images,
                                      const std::vector<int64_t>& kernel, bool transposed) const {
    std::array<int64_t, 2> out{};
    for (size_t i = 0; i < 2; i++) {
      out[i] = output_size(images[3 + i], pads[i] + pads[2 + i], kernel[2 + i], strides[i],
                           dilations[i], transposed);
      if (out[i] < 0)
        throw CallError(
            "an image of " + text(images) +
            (transposed ? " has no output within the pads" : " is smaller than the kernel"));
      if (out[i] > INT32_MAX || images[3 + i] > INT32_MAX)
        throw CallError("an image of " + text(images) + " is too large");
    }
    return out;
  }
};

}  // namespace synapse
