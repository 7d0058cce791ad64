// Unpooling with integer weights, of one kernel or of a real and an imaginary one: see
// pooling/kernel.h.
#include "pooling/kernel.h"

namespace synapse {
namespace {

// Windows of two by two side by side, by far the most common.
struct UnpoolTwoByTwo {
  SYNAPSE_CLONES static void run(const PoolGeometry& g, const float* weight, float scale,
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
};

// y[r(i, k), r(j, l)] = scale * sum over all i, j, k, l of weight[k, l] * x[i, j].
struct UnpoolPlane {
  static constexpr const char* kNames[] = {"QuantizedUnpool", "QuantizedComplexUnpool"};
  static constexpr bool kTransposed = true;
  using TwoByTwo = UnpoolTwoByTwo;

  // Compiled for the baseline only: with gathers and scatters the loop is slower than a plain one.
  static void run(const PoolGeometry& g, const float* weight, float scale, const float* x,
                  float* y) {
    const int64_t positions = g.out_height * g.out_width;
    std::fill_n(y, positions, 0.0f);
    for (int64_t i = 0; i < g.height; i++) {
      const float* in = x + i * g.width;
      if (std::all_of(in, in + g.width, [](float value) { return value == 0.0f; })) continue;
      for (int64_t k = 0; k < g.rows; k++) {
        const int64_t at_y = i * g.stride_y + k * g.dilation_y - g.pad_y;
        if (at_y < 0 || at_y >= g.out_height) continue;
        for (int64_t l = 0; l < g.columns; l++) {
          // only the inputs that lie within the output
          const int64_t left = l * g.dilation_x - g.pad_x, room = g.out_width - left;
          int64_t first = 0, last = g.width;
          if (left < 0) first = (-left + g.stride_x - 1) / g.stride_x;
          if ((g.width - 1) * g.stride_x >= room) last = (room + g.stride_x - 1) / g.stride_x;
          const float factor = weight[k * g.columns + l];
          float* to = y + at_y * g.out_width + left;
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

const RegisterSynapse<Pooling<UnpoolPlane, 1>> real;
const RegisterSynapse<Pooling<UnpoolPlane, 2>> complex;

}  // namespace
}  // namespace synapse
