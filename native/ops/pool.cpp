// Pooling with integer weights, of one kernel or of a real and an imaginary one: see
// pooling/kernel.h.
#include "pooling/kernel.h"

namespace synapse {
namespace {

// Windows of two by two side by side, by far the most common.
struct PoolTwoByTwo {
  SYNAPSE_CLONES static void run(const PoolGeometry& g, const float* weight, float scale,
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
};

// y[i, j] = scale * sum_{k, l} weight[k, l] * x[r(i, k), r(j, l)].
struct PoolPlane {
  static constexpr const char* kNames[] = {"QuantizedPool", "QuantizedComplexPool"};
  static constexpr bool kTransposed = false;
  using TwoByTwo = PoolTwoByTwo;

  SYNAPSE_CLONES static void run(const PoolGeometry& g, const float* weight, float scale,
                                 const float* x, float* y) {
    for (int64_t i = 0; i < g.out_height; i++) {
      for (int64_t j = 0; j < g.out_width; j++) {
        float sum = 0.0f;
        for (int64_t k = 0; k < g.rows; k++) {
          const int64_t at_y = i * g.stride_y + k * g.dilation_y - g.pad_y;
          if (at_y < 0 || at_y >= g.height) continue;
          for (int64_t l = 0; l < g.columns; l++) {
            const int64_t at_x = j * g.stride_x + l * g.dilation_x - g.pad_x;
            if (at_x < 0 || at_x >= g.width) continue;
            sum += weight[k * g.columns + l] * x[at_y * g.width + at_x];
          }
        }
        y[i * g.out_width + j] = sum * scale;
      }
    }
  }
};

const RegisterSynapse<Pooling<PoolPlane, 1>> real;
const RegisterSynapse<Pooling<PoolPlane, 2>> complex;

}  // namespace
}  // namespace synapse
