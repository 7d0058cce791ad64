// Strides, pads and dilations of convolutions and pools, and the size of the images that result.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "base/call.h"

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

// How a kernel lies over an image and its output.
struct Window {
  int64_t height, width, out_height, out_width, kernel_height, kernel_width;
  int64_t stride_y, stride_x, pad_y, pad_x, dilation_y, dilation_x;
};

// The attributes strides, pads and dilations of a node, checked: strides are positive, so that no
// later division is by zero.
struct WindowAttributes {
  std::vector<int64_t> strides, pads, dilations;

  explicit WindowAttributes(const Ort::ConstKernelInfo& info)
      : strides(info.GetAttributes<int64_t>("strides")),
        pads(info.GetAttributes<int64_t>("pads")),
        dilations(info.GetAttributes<int64_t>("dilations")) {
    const auto at_least = [](const std::vector<int64_t>& values, int64_t bound) {
      return std::all_of(values.begin(), values.end(),
                         [=](int64_t value) { return value >= bound && value <= INT32_MAX; });
    };
    if (strides.size() != 2 || pads.size() != 4 || dilations.size() != 2)
      throw CallError("needs two strides, four pads and two dilations");
    if (!at_least(strides, 1) || !at_least(pads, 0) || !at_least(dilations, 1))
      throw CallError("strides and dilations must be at least 1, and pads at least 0");
  }

  // The window of images (T, N, C, H, W) and a kernel (.., .., h, w, 1).
  Window over(const Shape& images, const Shape& kernel, bool transposed) const {
    int64_t out[2];
    for (size_t i = 0; i < 2; i++) {
      out[i] = output_size(images[3 + i], pads[i] + pads[2 + i], kernel[2 + i], strides[i],
                           dilations[i], transposed);
      if (out[i] < 0)
        throw CallError(
            "an image of ", images,
            transposed ? " has no output within the pads" : " is smaller than the kernel");
      if (out[i] > INT32_MAX || images[3 + i] > INT32_MAX)
        throw CallError("an image of ", images, " is too large");
    }
    return {images[3],  images[4],  out[0],  out[1],  kernel[2],    kernel[3],
            strides[0], strides[1], pads[0], pads[1], dilations[0], dilations[1]};
  }
};

}  // namespace synapse
