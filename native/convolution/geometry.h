// The sizes of one call of a convolution.
#pragma once

#include <cstdint>

namespace synapse {

struct ConvGeometry {
  bool transposed;
  int64_t batch, channels, height, width;  // of the input; the batch is time steps times samples
  int64_t outputs, out_height, out_width;  // output channels of one part, and the size of its image
  int64_t kernel_height, kernel_width, stride_y, stride_x, pad_y, pad_x, dilation_y, dilation_x;
  int64_t groups;

  int64_t positions() const { return out_height * out_width; }
};

}  // namespace synapse
