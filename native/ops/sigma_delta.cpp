// Delta encoder of an axon, in floats: d[t] = x[t] - x[t-1] + r[t-1]; s[t] = d[t] where
// abs(d[t]) >= threshold, else 0; r[t] = d[t] - s[t]. With cumulative error: e[t] = e[t-1] + d[t];
// s[t] = d[t] where abs(e[t]) >= threshold, and e[t] = 0 where s[t] is not 0. The output is
// floored to a multiple of 1 / scale. Source: lava-dl, slayer/axon/delta.py.
//
// Sigma decoder of a dendrite: y[t] = y[t-1] + x[t], summed in float64 and rounded to float32.
#include <algorithm>
#include <cmath>
#include <vector>

#include "base/compiler.h"
#include "base/op.h"

namespace synapse {
namespace {

constexpr int64_t kBlock = 512;  // neurons whose states stay in the first-level cache

struct DeltaCall {
  const float* x;
  float *s, *last[3];  // last states: the input, the residual and the error
  int64_t steps, neurons;
  float unit;
};

// Takes a block of neurons through all time steps; `threshold` is that of its first.
template <bool cumulative>
struct EncodeBlock {
  SYNAPSE_CLONES static void run(const DeltaCall& call, const float* threshold, int64_t first,
                                 int64_t count) {
    float *pre = call.last[0] + first, *residual = call.last[1] + first;
    float *error = call.last[2] + first, unit = call.unit;
    for (int64_t t = 0; t < call.steps; t++) {
      const float* x = call.x + t * call.neurons + first;
      float* s = call.s + t * call.neurons + first;
      SYNAPSE_INDEPENDENT
      for (int64_t i = 0; i < count; i++) {
        const float now = x[i], change = now - pre[i] + residual[i];
        const float sum = error[i] + change;
        const float compared = cumulative ? sum : change;
        const float sent = std::fabs(compared) >= threshold[i] ? change : 0.0f;
        if (cumulative) error[i] = sent != 0.0f ? 0.0f : sum;
        residual[i] = change - sent;
        pre[i] = now;
        s[i] = std::floor(sent / unit) * unit;
      }
    }
  }
};

class DeltaKernel : public Kernel {
 public:
  explicit DeltaKernel(const OrtKernelInfo* raw) {
    const Ort::ConstKernelInfo info(raw);
    unit_ = 1.0f / static_cast<float>(info.GetAttribute<int64_t>("scale"));
    cumulative_ = info.GetAttribute<int64_t>("cumulative") != 0;
  }

  void compute(const Ort::KernelContext& context) const override {
    const Input x(context, 0), threshold(context, 1);
    const Shape plane = plane_of(x.shape);
    const int64_t channels = x.shape[2], within = product(x.shape, 3);
    if (threshold.size != 1 && threshold.size != channels)
      throw CallError("a threshold of shape ", threshold.shape,
                      " is neither one value nor one for each of ", channels, " channels");
    DeltaCall call{x.as<float>(), nullptr, {}, x.shape[0], product(plane), unit_};
    const float* before[3];
    for (size_t k = 0; k < 3; k++) {
      const Input state(context, 2 + k);
      if (state.shape != plane)
        throw CallError("a state of shape ", state.shape, " does not fit an input of ", x.shape);
      before[k] = state.as<float>();
      call.last[k] = float_output(context, 1 + k, plane);
    }
    call.s = float_output(context, 0, x.shape);
    parallel_blocks(context, call.neurons, kBlock, call.steps, [&](int64_t first, int64_t count) {
      float levels[kBlock];
      for (size_t k = 0; k < 3; k++) std::copy_n(before[k] + first, count, call.last[k] + first);
      for (int64_t i = 0; i < count; i++)
        levels[i] =
            threshold.as<float>()[threshold.size == 1 ? 0 : (first + i) / within % channels];
      cumulative_ ? EncodeBlock<true>::run(call, levels, first, count)
                  : EncodeBlock<false>::run(call, levels, first, count);
    });
  }

 private:
  float unit_;
  bool cumulative_;
};

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
    const Shape plane = plane_of(x.shape);
    if (total.shape != plane)
      throw CallError("a total of shape ", total.shape, " does not fit an input of ", x.shape);
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

const RegisterOp kernels[] = {
    {{"Delta", Types(5, kFloat), Types(4, kFloat), copies({0, 2, 3, 4}), make_kernel<DeltaKernel>}},
    {{"Sigma", {kFloat, kDouble}, {kFloat, kDouble}, copies({0, 1}), make_kernel<SigmaKernel>}},
};

}  // namespace
}  // namespace synapse
