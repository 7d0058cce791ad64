// Pooling with integer weights, of one kernel or of a real and an imaginary one: see pooling.h.
#include "../pooling.h"

namespace synapse {
namespace {

// Windows of two by two side by side, by far the most common.
struct Halves {
  SYNAPSE_CLONES static void run(const Window& w, const float* weight, float step, const float* x,
                                 float* y) {
    const float a = weight[0], b = weight[1], c = weight[2], d = weight[3];
    for (int64_t i = 0; i < w.out_height; i++) {
      const float *up = x + 2 * i * w.width, *down = up + w.width;
      float* out = y + i * w.out_width;
      SYNAPSE_INDEPENDENT
      for (int64_t j = 0; j < w.out_width; j++)
        out[j] = (a * up[2 * j] + b * up[2 * j + 1] + c * down[2 * j] + d * down[2 * j + 1]) * step;
    }
  }
};

// y[i, j] = step * sum_{k, l} weight[k, l] * x[r(i, k), r(j, l)].
struct Pools {
  static constexpr const char* kNames[] = {"QuantizedPool", "QuantizedComplexPool"};
  static constexpr bool kTransposed = false;
  using TwoByTwo = Halves;

  SYNAPSE_CLONES static void run(const Window& w, const float* weight, float step, const float* x,
                                 float* y) {
    for (int64_t i = 0; i < w.out_height; i++) {
      for (int64_t j = 0; j < w.out_width; j++) {
        float sum = 0.0f;
        for (int64_t k = 0; k < w.rows; k++) {
          const int64_t at_y = i * w.stride_y + k * w.dilation_y - w.pad_y;
          if (at_y < 0 || at_y >= w.height) continue;
          for (int64_t l = 0; l < w.columns; l++) {
            const int64_t at_x = j * w.stride_x + l * w.dilation_x - w.pad_x;
            if (at_x < 0 || at_x >= w.width) continue;
            sum += weight[k * w.columns + l] * x[at_y * w.width + at_x];
          }
        }
        y[i * w.out_width + j] = sum * step;
      }
    }
  }
};

const RegisterSynapse<Pooling<Pools, 1>> real;
const RegisterSynapse<Pooling<Pools, 2>> both;

}  // namespace
}  // namespace synapse
