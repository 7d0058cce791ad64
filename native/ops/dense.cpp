// Dense synapse with integer weights: y[t, n, o] = scale[o] * sum_c weight[o, c] * x[t, n, c]. See
// dense/dense.h.
#include "base/op.h"
#include "dense/dense.h"

namespace synapse {
namespace {

template <int parts>
class DenseKernel : public Kernel {
 public:
  static constexpr const char* kName = Dense<parts>::kName;
  static constexpr int kParts = parts;
  static constexpr ONNXTensorElementDataType kInput = kAny;

  static void infer(const ShapeInference& shapes) {
    for (int k = 0; k < parts; k++) shapes.replace_last(0, 1 + k, k, shapes.flag(kTimeLast));
  }

  explicit DenseKernel(const OrtKernelInfo* info) : dense_(info) {}

  void compute(const Ort::KernelContext& context) const override {
    const auto call = dense_.open(context);
    float* y[parts];
    for (int k = 0; k < parts; k++)
      y[k] = float_output(context, k, {call.steps, call.samples, call.weight[k]->outputs});
    dense_.run(context, call, y);
  }

 private:
  Dense<parts> dense_;
};

const RegisterSynapse<DenseKernel<1>> real;
const RegisterSynapse<DenseKernel<2>> complex;

}  // namespace
}  // namespace synapse
