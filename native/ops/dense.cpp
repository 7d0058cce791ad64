// Dense synapse with integer weights: y[t, n, o] = scale[o] * sum_c weight[o, c] * x[t, n, c]. See
// dense/dense.h.
#include "dense/dense.h"
#include "synapse/op.h"

namespace synapse {
namespace {

template <int parts>
class DenseKernel {
 public:
  static constexpr const char* kName = Dense<parts>::kName;
  static constexpr int kParts = parts;
  static constexpr bool kAnyInput = true;

  static void infer(const ShapeInference& shapes) {
    for (int k = 0; k < parts; k++) shapes.replace_last(0, 1 + k, k, shapes.flag(kTimeLast));
  }

  explicit DenseKernel(const OrtKernelInfo* info) : dense_(info) {}

  OrtStatusPtr ComputeV2(OrtKernelContext* context) const {
    return guarded(kName, [&] { compute(Ort::KernelContext(context)); });
  }

 private:
  void compute(const Ort::KernelContext& context) const {
    const auto call = dense_.open(context);
    float* y[parts];
    for (int k = 0; k < parts; k++) {
      const std::vector<int64_t> shape = {call.steps, call.samples, call.weight[k]->outputs};
      y[k] = context.GetOutput(static_cast<size_t>(k), shape).GetTensorMutableData<float>();
    }
    dense_.run(context, call, y);
  }

  Dense<parts> dense_;
};

const RegisterSynapse<DenseKernel<1>> real;
const RegisterSynapse<DenseKernel<2>> complex;

}  // namespace
}  // namespace synapse
