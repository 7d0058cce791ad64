// Sigma decoder of a dendrite: y[t] = y[t-1] + x[t], summed in float64 and rounded to float32.
#include <algorithm>
#include <vector>

#include "base/compiler.h"
#include "base/op.h"

namespace synapse {
namespace {

constexpr int64_t kBlock = 512;  // neurons whose sums stay in the first-level cache

// Takes a block of neurons through all time steps.
struct DecodeBlock {
  SYNAPSE_CLONES static void run(const float* x, double* total, float* y, int64_t steps,
                                 int64_t neurons, int64_t count) {
    for (int64_t t = 0; t < steps; t++) {
      const float* in = x + t * neurons;
      float* out = y + t * neurons;
      SYNAPSE_INDEPENDENT
      for (int64_t i = 0; i < count; i++) {
        total[i] += static_cast<double>(in[i]);
        out[i] = static_cast<float>(total[i]);
      }
    }
  }
};

struct SigmaKernel : Kernel {
  explicit SigmaKernel(const OrtKernelInfo*) {}

  void compute(const Ort::KernelContext& context) const override {
    const Input x(context, 0), total(context, 1);
    const std::vector<int64_t> plane = plane_of(x.shape);
    if (total.shape != plane)
      throw CallError("a total of shape " + text(total.shape) + " does not fit an input of " +
                      text(x.shape));
    float* y = float_output(context, 0, x.shape);
    double* last = context.GetOutput(1, plane).GetTensorMutableData<double>();
    const int64_t steps = x.shape[0], neurons = total.size;
    parallel_blocks(context, neurons, kBlock, steps, [&](int64_t first, int64_t count) {
      std::copy_n(total.as<double>() + first, count, last + first);
      DecodeBlock::run(x.as<float>() + first, last + first, y + first, steps, neurons, count);
    });
  }
};

constexpr ONNXTensorElementDataType kDouble = ONNX_TENSOR_ELEMENT_DATA_TYPE_DOUBLE;

const RegisterOp sigma({"Sigma",
                        {kFloat, kDouble},
                        {kFloat, kDouble},
                        [](const ShapeInference& shapes) {
                          shapes.copy(0, 0);
                          shapes.copy(1, 1);
                        },
                        make_kernel<SigmaKernel>});

}  // namespace
}  // namespace synapse
