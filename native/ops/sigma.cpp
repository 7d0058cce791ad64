// Sigma decoder of a dendrite: y[t] = y[t-1] + x[t], summed in float64 and rounded to float32.
#include <algorithm>
#include <vector>

#include "base/compiler.h"
#include "base/op.h"
#include "base/parallel.h"

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

class SigmaKernel {
 public:
  explicit SigmaKernel(const OrtKernelInfo*) {}

  OrtStatusPtr ComputeV2(OrtKernelContext* context) const {
    return guarded("Sigma", [&] { compute(Ort::KernelContext(context)); });
  }

 private:
  static void compute(const Ort::KernelContext& context) {
    const Input x(context, 0), total(context, 1);
    if (x.shape.size() < 3)
      throw CallError("the input needs the axes (T, N, C, ...), got " + text(x.shape));
    const std::vector<int64_t> plane(x.shape.begin() + 1, x.shape.end());
    if (total.shape != plane)
      throw CallError("a total of shape " + text(total.shape) + " does not fit an input of " +
                      text(x.shape));
    float* y = context.GetOutput(0, x.shape).GetTensorMutableData<float>();
    double* last = context.GetOutput(1, plane).GetTensorMutableData<double>();
    const int64_t steps = x.shape[0], neurons = total.size;
    const int64_t blocks = (neurons + kBlock - 1) / kBlock;
    const int64_t least = (1 << 14) / (kBlock * std::max<int64_t>(steps, 1)) + 1;
    parallel(context, blocks, least, [&](int64_t from, int64_t to) {
      for (int64_t b = from; b < to; b++) {
        const int64_t first = b * kBlock, count = std::min(kBlock, neurons - first);
        std::copy_n(total.as<double>() + first, count, last + first);
        DecodeBlock::run(x.as<float>() + first, last + first, y + first, steps, neurons, count);
      }
    });
  }
};

struct SigmaOp : CustomOp<SigmaOp, SigmaKernel> {
  const char* GetName() const { return "Sigma"; }
  size_t GetInputTypeCount() const { return 2; }
  size_t GetOutputTypeCount() const { return 2; }
  ONNXTensorElementDataType GetInputType(size_t i) const {
    return i == 0 ? ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT : ONNX_TENSOR_ELEMENT_DATA_TYPE_DOUBLE;
  }
  ONNXTensorElementDataType GetOutputType(size_t i) const { return GetInputType(i); }
  void infer(const ShapeInference& shapes) const {
    shapes.copy(0, 0);
    shapes.copy(1, 1);
  }
};

const SigmaOp op;
const RegisterOp kernel(op, "Sigma");

}  // namespace
}  // namespace synapse
