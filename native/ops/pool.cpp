// Pooling with integer weights: y[n, c, t] = step * sum over a window of weight * x[n, c, t], every
// channel by itself. Sums of integers below 2**24 are exact in floats.
#include <algorithm>
#include <memory>

#include "../synapse.h"

namespace synapse {
namespace {

struct Window {
  int64_t height, width, out_height, out_width, rows, columns;
  int64_t stride_y, stride_x, pad_y, pad_x, dilation_y, dilation_x;
  std::vector<float> weight;
};

struct Plane {
  // Windows of two by two side by side, by far the most common.
  SYNAPSE_CLONES static void halves(const Window& w, float step, const float* x, float* y) {
    const float a = w.weight[0], b = w.weight[1], c = w.weight[2], d = w.weight[3];
    for (int64_t i = 0; i < w.out_height; i++) {
      const float *up = x + 2 * i * w.width, *down = up + w.width;
      float* out = y + i * w.out_width;
      SYNAPSE_INDEPENDENT
      for (int64_t j = 0; j < w.out_width; j++)
        out[j] = (a * up[2 * j] + b * up[2 * j + 1] + c * down[2 * j] + d * down[2 * j + 1]) * step;
    }
  }

  SYNAPSE_CLONES static void any(const Window& w, float step, const float* x, float* y) {
    for (int64_t i = 0; i < w.out_height; i++) {
      for (int64_t j = 0; j < w.out_width; j++) {
        float sum = 0.0f;
        for (int64_t k = 0; k < w.rows; k++) {
          const int64_t at_y = i * w.stride_y + k * w.dilation_y - w.pad_y;
          if (at_y < 0 || at_y >= w.height) continue;
          for (int64_t l = 0; l < w.columns; l++) {
            const int64_t at_x = j * w.stride_x + l * w.dilation_x - w.pad_x;
            if (at_x < 0 || at_x >= w.width) continue;
            sum += w.weight[static_cast<size_t>(k * w.columns + l)] * x[at_y * w.width + at_x];
          }
        }
        y[i * w.out_width + j] = sum * step;
      }
    }
  }
};

class PoolKernel {
 public:
  static constexpr const char* kName = "QuantizedPool";
  static constexpr int kParts = 1;
  static constexpr bool kAnyInput = false;

  static void infer(const Shapes& shapes) { shapes.image(0, 1, 0); }

  explicit PoolKernel(const OrtKernelInfo* raw) : placing_(Ort::ConstKernelInfo(raw)) {}

  OrtStatusPtr ComputeV2(OrtKernelContext* context) const {
    return guarded(kName, [&] { compute(Ort::KernelContext(context)); });
  }

 private:
  void compute(const Ort::KernelContext& context) const {
    const Input x(context, 0), weight(context, 1), step(context, 2);
    if (x.shape.size() != 5)
      throw CallError("the input needs the axes (T, N, C, H, W), got " + text(x.shape));
    if (weight.shape.size() != 5 || weight.shape[0] != 1 || weight.shape[1] != 1 ||
        weight.shape[4] != 1)
      throw CallError("a weight needs the shape (1, 1, h, w, 1), got " + text(weight.shape));
    const int64_t channels = x.shape[2];
    check_step(step, channels, "channels");
    Window w{};
    w.height = x.shape[3];
    w.width = x.shape[4];
    w.rows = weight.shape[2];
    w.columns = weight.shape[3];
    w.stride_y = placing_.strides[0];
    w.stride_x = placing_.strides[1];
    w.pad_y = placing_.pads[0];
    w.pad_x = placing_.pads[1];
    w.dilation_y = placing_.dilations[0];
    w.dilation_x = placing_.dilations[1];
    for (int64_t i = 0; i < weight.size; i++)
      w.weight.push_back(static_cast<float>(integer_weight(weight, i)));
    w.out_height = places_along(w.height, placing_.pads[0] + placing_.pads[2], w.rows, w.stride_y,
                                w.dilation_y);
    w.out_width = places_along(w.width, placing_.pads[1] + placing_.pads[3], w.columns, w.stride_x,
                               w.dilation_x);
    if (w.out_height < 0 || w.out_width < 0)
      throw CallError("an image of " + text(x.shape) + " is smaller than the window");
    auto output =
        context.GetOutput(0, {x.shape[0], x.shape[1], channels, w.out_height, w.out_width});
    float* y = output.GetTensorMutableData<float>();
    const int64_t plane = w.height * w.width, places = w.out_height * w.out_width;
    const bool halves = w.rows == 2 && w.columns == 2 && w.stride_y == 2 && w.stride_x == 2 &&
                        placing_.pads == std::vector<int64_t>(4, 0) &&
                        placing_.dilations == std::vector<int64_t>(2, 1);
    const int64_t planes = x.shape[0] * x.shape[1] * channels;
    parallel(context, planes, (1 << 16) / (plane + 1) + 1, [&](int64_t from, int64_t to) {
      for (int64_t p = from; p < to; p++) {
        const float gain = step.as<float>()[step.size == 1 ? 0 : p % channels];
        const float* in = x.as<float>() + p * plane;
        float* out = y + p * places;
        halves ? Plane::halves(w, gain, in, out) : Plane::any(w, gain, in, out);
      }
    });
  }

  Placing placing_;
};

const RegisterSynapse<PoolKernel> kernel;

}  // namespace
}  // namespace synapse
