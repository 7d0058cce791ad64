// Pooling and unpooling with integer weights: every channel by itself, with one kernel (real) or
// two (complex). The sums are computed in floats, which are exact for integers below 2**24.
#pragma once

#include <algorithm>
#include <vector>

#include "base/compiler.h"
#include "base/parallel.h"
#include "base/window.h"
#include "synapse/op.h"

namespace synapse {

// How a kernel of rows x columns lies over an image and its output.
struct PoolGeometry {
  int64_t height, width, out_height, out_width, rows, columns;
  int64_t stride_y, stride_x, pad_y, pad_x, dilation_y, dilation_x;
};

// `Plane::run` pools or unpools one plane, and `Plane::TwoByTwo::run` does so for windows of two by
// two side by side. `Plane` also states the names of the real and the complex op.
template <class Plane, int parts>
class Pooling {
 public:
  static constexpr const char* kName = Plane::kNames[parts - 1];
  static constexpr int kParts = parts;
  static constexpr bool kAnyInput = false;

  static void infer(const ShapeInference& shapes) {
    for (int k = 0; k < parts; k++) shapes.image(0, 1 + k, k, Plane::kTransposed);
  }

  explicit Pooling(const OrtKernelInfo* raw) : attributes_(Ort::ConstKernelInfo(raw)) {}

  OrtStatusPtr ComputeV2(OrtKernelContext* context) const {
    return guarded(kName, [&] { compute(Ort::KernelContext(context)); });
  }

 private:
  struct Part {
    std::vector<float> weight;
    const float* scale;
    bool one_scale;  // for all channels
    float* y;
  };

  void compute(const Ort::KernelContext& context) const {
    const Input x(context, 0);
    if (x.shape.size() != 5)
      throw CallError("the input needs the axes (T, N, C, H, W), got " + text(x.shape));
    const int64_t channels = x.shape[2];
    std::vector<Part> all;
    PoolGeometry g{};
    for (size_t k = 0; k < parts; k++) {
      const Input weight(context, 1 + k), scale(context, 1 + parts + k);
      if (weight.shape.size() != 5 || weight.shape[0] != 1 || weight.shape[1] != 1 ||
          weight.shape[4] != 1)
        throw CallError("a weight needs the shape (1, 1, h, w, 1), got " + text(weight.shape));
      if (k == 0) g = geometry(x.shape, weight.shape);
      if (weight.shape[2] != g.rows || weight.shape[3] != g.columns)
        throw CallError("both weights need one shape, got " + text(weight.shape) + " behind " +
                        text({1, 1, g.rows, g.columns, 1}));
      check_weight_scale(scale, channels, "channels");
      Part part{{}, scale.as<float>(), scale.size == 1, nullptr};
      for (int64_t i = 0; i < weight.size; i++)
        part.weight.push_back(static_cast<float>(integer_weight(weight, i)));
      part.y = context.GetOutput(k, {x.shape[0], x.shape[1], channels, g.out_height, g.out_width})
                   .template GetTensorMutableData<float>();
      all.push_back(std::move(part));
    }
    const int64_t in_size = g.height * g.width, out_size = g.out_height * g.out_width;
    const bool two_by_two = g.rows == 2 && g.columns == 2 && g.stride_y == 2 && g.stride_x == 2 &&
                            attributes_.pads == std::vector<int64_t>(4, 0) &&
                            attributes_.dilations == std::vector<int64_t>(2, 1);
    const int64_t planes = x.shape[0] * x.shape[1] * channels;
    const int64_t work = 1 + parts * std::max(in_size, out_size);
    parallel(context, planes, (1 << 16) / work + 1, [&](int64_t from, int64_t to) {
      for (int64_t p = from; p < to; p++) {
        const float* in = x.as<float>() + p * in_size;
        for (const Part& part : all) {
          const float scale = part.scale[part.one_scale ? 0 : p % channels];
          float* out = part.y + p * out_size;
          two_by_two ? Plane::TwoByTwo::run(g, part.weight.data(), scale, in, out)
                     : Plane::run(g, part.weight.data(), scale, in, out);
        }
      }
    });
  }

  PoolGeometry geometry(const std::vector<int64_t>& x, const std::vector<int64_t>& weight) const {
    const auto [out_height, out_width] = attributes_.output_image(x, weight, Plane::kTransposed);
    return {x[3],
            x[4],
            out_height,
            out_width,
            weight[2],
            weight[3],
            attributes_.strides[0],
            attributes_.strides[1],
            attributes_.pads[0],
            attributes_.pads[1],
            attributes_.dilations[0],
            attributes_.dilations[1]};
  }

  WindowAttributes attributes_;
};

}  // namespace synapse
