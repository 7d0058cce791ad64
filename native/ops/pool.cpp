// Pooling and unpooling with integer weights: every channel by itself, with one kernel (real) or
// two (complex). The sums are computed in floats, which are exact for integers below 2**24.
#include <algorithm>
#include <vector>

#include "base/compiler.h"
#include "base/op.h"

namespace synapse {
namespace {

// `Plane::run` pools or unpools one plane, and `Plane::two_by_two` does so for windows of two by
// two side by side, by far the most common. `Plane` also states the names of the real and the
// complex op.
template <class Plane, int parts>
class Pooling : public Kernel {
 public:
  static constexpr const char* kName = Plane::kNames[parts - 1];
  static constexpr int kParts = parts, kBiases = 0;
  static constexpr ONNXTensorElementDataType kInput = kFloat;

  static void infer(const ShapeInference& shapes) {
    for (int k = 0; k < parts; k++) shapes.image(0, 1 + k, k, Plane::kTransposed);
  }

  explicit Pooling(const OrtKernelInfo* raw) : attributes_(Ort::ConstKernelInfo(raw)) {}

  void compute(const Ort::KernelContext& context) const override {
    const Input x(context, 0);
    if (x.shape.size() != 5)
      throw CallError("the input needs the axes (T, N, C, H, W), got ", x.shape);
    const int64_t channels = x.shape[2];
    Part all[parts];
    Window g{};
    for (size_t k = 0; k < parts; k++) {
      const Input weight(context, 1 + k);
      if (weight.shape.size() != 5 || weight.shape[0] != 1 || weight.shape[1] != 1 ||
          weight.shape[4] != 1)
        throw CallError("a weight needs the shape (1, 1, h, w, 1), got ", weight.shape);
      if (k == 0) g = attributes_.over(x.shape, weight.shape, Plane::kTransposed);
      if (weight.shape[2] != g.kernel_height || weight.shape[3] != g.kernel_width)
        throw CallError("both weights need one shape, got ", weight.shape, " behind ",
                        Shape{1, 1, g.kernel_height, g.kernel_width, 1});
      const Input scale(context, 1 + parts + k);
      Part& part = all[k];
      part.scale = weight_scale(scale, channels, "channels");
      for (int64_t i = 0; i < weight.size; i++)
        part.weight.push_back(static_cast<float>(integer_weight(weight, i)));
      part.y =
          float_output(context, k, {x.shape[0], x.shape[1], channels, g.out_height, g.out_width});
    }
    const int64_t in_size = g.height * g.width, out_size = g.out_height * g.out_width;
    const bool two_by_two = g.kernel_height == 2 && g.kernel_width == 2 && g.stride_y == 2 &&
                            g.stride_x == 2 && attributes_.pads == std::vector<int64_t>(4, 0) &&
                            attributes_.dilations == std::vector<int64_t>(2, 1);
    const int64_t planes = x.shape[0] * x.shape[1] * channels;
    const int64_t work = 1 + parts * std::max(in_size, out_size);
    parallel(context, planes, (1 << 16) / work + 1, [&](int64_t from, int64_t to) {
      for (int64_t p = from; p < to; p++) {
        const float* in = x.as<float>() + p * in_size;
        for (const Part& part : all) {
          const float scale = part.scale[p % channels];
          float* out = part.y + p * out_size;
          two_by_two ? Plane::two_by_two(g, part.weight.data(), scale, in, out)
                     : Plane::run(g, part.weight.data(), scale, in, out);
        }
      }
    });
  }

 private:
  struct Part {
    std::vector<float> weight;
    WeightScale scale;
    float* y;
  };

  WindowAttributes attributes_;
};

// y[i, j] = scale * sum_{k, l} weight[k, l] * x[r(i, k), r(j, l)].
struct PoolPlane {
  static constexpr const char* kNames[] = {"QuantizedPool", "QuantizedComplexPool"};
  static constexpr bool kTransposed = false;

  SYNAPSE_CLONES static void two_by_two(const Window& g, const float* weight, float scale,
                                        const float* x, float* y) {
    const float a = weight[0], b = weight[1], c = weight[2], d = weight[3];
    for (int64_t i = 0; i < g.out_height; i++) {
      const float *up = x + 2 * i * g.width, *down = up + g.width;
      float* out = y + i * g.out_width;
      SYNAPSE_INDEPENDENT
      for (int64_t j = 0; j < g.out_width; j++)
        out[j] =
            (a * up[2 * j] + b * up[2 * j + 1] + c * down[2 * j] + d * down[2 * j + 1]) * scale;
    }
  }

  SYNAPSE_CLONES static void run(const Window& g, const float* weight, float scale, const float* x,
                                 float* y) {
    for (int64_t i = 0; i < g.out_height; i++) {
      for (int64_t j = 0; j < g.out_width; j++) {
        float sum = 0.0f;
        for (int64_t k = 0; k < g.kernel_height; k++) {
          const int64_t at_y = i * g.stride_y + k * g.dilation_y - g.pad_y;
          if (at_y < 0 || at_y >= g.height) continue;
          for (int64_t l = 0; l < g.kernel_width; l++) {
            const int64_t at_x = j * g.stride_x + l * g.dilation_x - g.pad_x;
            if (at_x < 0 || at_x >= g.width) continue;
            sum += weight[k * g.kernel_width + l] * x[at_y * g.width + at_x];
          }
        }
        y[i * g.out_width + j] = sum * scale;
      }
    }
  }
};

// y[r(i, k), r(j, l)] = scale * sum over all i, j, k, l of weight[k, l] * x[i, j].
struct UnpoolPlane {
  static constexpr const char* kNames[] = {"QuantizedUnpool", "QuantizedComplexUnpool"};
  static constexpr bool kTransposed = true;
  SYNAPSE_CLONES static void two_by_two(const Window& g, const float* weight, float scale,
                                        const float* x, float* y) {
    for (int64_t i = 0; i < g.height; i++) {
      const float* in = x + i * g.width;
      for (int64_t k = 0; k < 2; k++) {
        const float left = weight[2 * k], right = weight[2 * k + 1];
        float* out = y + (2 * i + k) * g.out_width;
        SYNAPSE_INDEPENDENT
        for (int64_t j = 0; j < g.width; j++) {
          out[2 * j] = left * in[j] * scale;
          out[2 * j + 1] = right * in[j] * scale;
        }
      }
    }
  }

  // Compiled for the baseline only: with gathers and scatters the loop is slower than a plain one.
  static void run(const Window& g, const float* weight, float scale, const float* x, float* y) {
    const int64_t positions = g.out_height * g.out_width;
    std::fill_n(y, positions, 0.0f);
    for (int64_t i = 0; i < g.height; i++) {
      const float* in = x + i * g.width;
      if (std::all_of(in, in + g.width, [](float value) { return value == 0.0f; })) continue;
      for (int64_t k = 0; k < g.kernel_height; k++) {
        const int64_t at_y = i * g.stride_y + k * g.dilation_y - g.pad_y;
        if (at_y < 0 || at_y >= g.out_height) continue;
        for (int64_t l = 0; l < g.kernel_width; l++) {
          // only the inputs that lie within the output
          const int64_t left = l * g.dilation_x - g.pad_x, room = g.out_width - left;
          int64_t first = 0, last = g.width;
          if (left < 0) first = (-left + g.stride_x - 1) / g.stride_x;
          if ((g.width - 1) * g.stride_x >= room) last = (room + g.stride_x - 1) / g.stride_x;
          const float factor = weight[k * g.kernel_width + l];
          float* to = y + at_y * g.out_width + left;
          SYNAPSE_INDEPENDENT
          for (int64_t j = first; j < last; j++) to[j * g.stride_x] += factor * in[j];
        }
      }
    }
    multiply(y, positions, scale);
  }

 private:
  SYNAPSE_CLONES static void multiply(float* y, int64_t positions, float scale) {
    for (int64_t p = 0; p < positions; p++) y[p] *= scale;
  }
};

const RegisterSynapse<Pooling<PoolPlane, 1>> pool;
const RegisterSynapse<Pooling<PoolPlane, 2>> complex_pool;
const RegisterSynapse<Pooling<UnpoolPlane, 1>> unpool;
const RegisterSynapse<Pooling<UnpoolPlane, 2>> complex_unpool;

}  // namespace
}  // namespace synapse
