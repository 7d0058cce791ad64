// Dense synapse with integer weights: y[n, o, t] = step[o] * sum_c weight[o, c] * x[n, c, t].
//
// Spikes and other integers are summed as integers, whatever their number; other inputs go through
// ONNX Runtime's own product of floats, as in the portable body. The weights are laid out when the
// session is made.
#include "../dense.h"

namespace synapse {
namespace {

template <int parts>
class DenseKernel {
 public:
  static constexpr const char* kName = Dense<parts>::kName;
  static constexpr int kParts = parts;
  static constexpr bool kAnyInput = true;

  static void infer(const Shapes& shapes) {
    for (int k = 0; k < parts; k++) shapes.copy_but_last(0, 1 + k, k, shapes.flag(kTimeLast));
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
const RegisterSynapse<DenseKernel<2>> both;

}  // namespace
}  // namespace synapse
