// Pooling and unpooling with integer weights: one kernel, or a pair, on every channel by itself.
// Sums of integers below 2**24 are exact in floats.
#pragma once

#include <algorithm>
#include <vector>

#include "synapse.h"

namespace synapse {

// How a kernel of rows x columns lies over an image and its output.
struct Window {
  int64_t height, width, out_height, out_width, rows, columns;
  int64_t stride_y, stride_x, pad_y, pad_x, dilation_y, dilation_x;
};

// The kernel of a map of one plane, `Map::run`, which also has a name for one part and for two, and
// `TwoByTwo` for windows of two by two side by side.
template <class Map, int parts>
class Pooling {
 public:
  static constexpr const char* kName = Map::kNames[parts - 1];
  static constexpr int kParts = parts;
  static constexpr bool kAnyInput = false;

  static void infer(const Shapes& shapes) {
    for (int k = 0; k < parts; k++) shapes.image(0, 1 + k, k, Map::kTransposed);
  }

  explicit Pooling(const OrtKernelInfo* raw) : placing_(Ort::ConstKernelInfo(raw)) {}

  OrtStatusPtr ComputeV2(OrtKernelContext* context) const {
    return guarded(kName, [&] { compute(Ort::KernelContext(context)); });
  }

 private:
  // What an output has of its own.
  struct Part {
    std::vector<float> weight;
    const float* step;
    bool one_step;
    float* y;
  };

  void compute(const Ort::KernelContext& context) const {
    const Input x(context, 0);
    if (x.shape.size() != 5)
      throw CallError("the input needs the axes (T, N, C, H, W), got " + text(x.shape));
    const int64_t channels = x.shape[2];
    std::vector<Part> all;
    Window w{};
    for (size_t k = 0; k < parts; k++) {
      const Input weight(context, 1 + k), step(context, 1 + parts + k);
      if (weight.shape.size() != 5 || weight.shape[0] != 1 || weight.shape[1] != 1 ||
          weight.shape[4] != 1)
        throw CallError("a weight needs the shape (1, 1, h, w, 1), got " + text(weight.shape));
      if (k == 0) w = window(x.shape, weight.shape);
      if (weight.shape[2] != w.rows || weight.shape[3] != w.columns)
        throw CallError("both weights need one shape, got " + text(weight.shape) + " behind " +
                        text({1, 1, w.rows, w.columns, 1}));
      check_step(step, channels, "channels");
      Part part{{}, step.as<float>(), step.size == 1, nullptr};
      for (int64_t i = 0; i < weight.size; i++)
        part.weight.push_back(static_cast<float>(integer_weight(weight, i)));
      part.y = context.GetOutput(k, {x.shape[0], x.shape[1], channels, w.out_height, w.out_width})
                   .template GetTensorMutableData<float>();
      all.push_back(std::move(part));
    }
    const int64_t plane = w.height * w.width, places = w.out_height * w.out_width;
    const bool two_by_two = w.rows == 2 && w.columns == 2 && w.stride_y == 2 && w.stride_x == 2 &&
                            placing_.pads == std::vector<int64_t>(4, 0) &&
                            placing_.dilations == std::vector<int64_t>(2, 1);
    const int64_t planes = x.shape[0] * x.shape[1] * channels;
    const int64_t work = 1 + parts * std::max(plane, places);
    parallel(context, planes, (1 << 16) / work + 1, [&](int64_t from, int64_t to) {
      for (int64_t p = from; p < to; p++) {
        const float* in = x.as<float>() + p * plane;
        for (const Part& part : all) {
          const float step = part.step[part.one_step ? 0 : p % channels];
          float* out = part.y + p * places;
          two_by_two ? Map::TwoByTwo::run(w, part.weight.data(), step, in, out)
                     : Map::run(w, part.weight.data(), step, in, out);
        }
      }
    });
  }

  Window window(const std::vector<int64_t>& x, const std::vector<int64_t>& weight) const {
    const auto [out_height, out_width] = placing_.image(x, weight, Map::kTransposed);
    return {x[3],
            x[4],
            out_height,
            out_width,
            weight[2],
            weight[3],
            placing_.strides[0],
            placing_.strides[1],
            placing_.pads[0],
            placing_.pads[1],
            placing_.dilations[0],
            placing_.dilations[1]};
  }

  Placing placing_;
};

}  // namespace synapse
