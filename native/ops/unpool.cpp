// Unpooling with integer weights, of one kernel or of a real and an imaginary one: see pooling.h.
#include "../pooling.h"

namespace synapse {
namespace {

// Windows of two by two side by side, by far the most common.
struct Doubles {
  SYNAPSE_CLONES static void run(const Window& w, const float* weight, float step, const float* x,
                                 float* y) {
    for (int64_t i = 0; i < w.height; i++) {
      const float* in = x + i * w.width;
      for (int64_t k = 0; k < 2; k++) {
        const float left = weight[2 * k], right = weight[2 * k + 1];
        float* out = y + (2 * i + k) * w.out_width;
        SYNAPSE_INDEPENDENT
        for (int64_t j = 0; j < w.width; j++) {
          out[2 * j] = left * in[j] * step;
          out[2 * j + 1] = right * in[j] * step;
        }
      }
    }
  }
};

// y[r(i, k), r(j, l)] = step * sum over all i, j, k, l of weight[k, l] * x[i, j].
struct Unpools {
  static constexpr const char* kNames[] = {"QuantizedUnpool", "QuantizedComplexUnpool"};
  static constexpr bool kTransposed = true;
  using TwoByTwo = Doubles;

  // Not in several instruction sets: what gathers and scatters there is slower than a plain loop.
  static void run(const Window& w, const float* weight, float step, const float* x, float* y) {
    const int64_t places = w.out_height * w.out_width;
    std::fill_n(y, places, 0.0f);
    for (int64_t i = 0; i < w.height; i++) {
      const float* in = x + i * w.width;
      if (std::all_of(in, in + w.width, [](float value) { return value == 0.0f; })) continue;
      for (int64_t k = 0; k < w.rows; k++) {
        const int64_t at_y = i * w.stride_y + k * w.dilation_y - w.pad_y;
        if (at_y < 0 || at_y >= w.out_height) continue;
        for (int64_t l = 0; l < w.columns; l++) {
          // inputs whose place lies within the output
          const int64_t left = l * w.dilation_x - w.pad_x, room = w.out_width - left;
          int64_t first = 0, last = w.width;
          if (left < 0) first = (-left + w.stride_x - 1) / w.stride_x;
          if ((w.width - 1) * w.stride_x >= room) last = (room + w.stride_x - 1) / w.stride_x;
          const float by = weight[k * w.columns + l];
          float* to = y + at_y * w.out_width + left;
          for (int64_t j = first; j < last; j++) to[j * w.stride_x] += by * in[j];
        }
      }
    }
    scale(y, places, step);
  }

 private:
  SYNAPSE_CLONES static void scale(float* y, int64_t places, float step) {
    for (int64_t p = 0; p < places; p++) y[p] *= step;
  }
};

const RegisterSynapse<Pooling<Unpools, 1>> real;
const RegisterSynapse<Pooling<Unpools, 2>> both;

}  // namespace
}  // namespace synapse
