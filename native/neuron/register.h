// From an equation to registered kernels. A file of native/ops declares a static object
// RegisterNeuron<Equation, regimes...>, and has kernels of the spikes, the traces and the recurrent
// spikes in each of these regimes; on the processor also the ops that are fused with a dense
// synapse. The library for CUDA compiles the same files with SYNAPSE_CUDA defined.
#pragma once

#include <memory>
#include <string>
#include <tuple>
#include <vector>

#include "base/op.h"
#include "neuron/node.h"

#if defined(SYNAPSE_CUDA)
#include "cuda/kernel.h"
#else
#include "neuron/fusion.h"
#include "neuron/kernel.h"
#endif

namespace synapse {

template <class Kernel>
struct NeuronOp : CustomOp<NeuronOp<Kernel>, Kernel> {
  const char* GetName() const { return Kernel::name().c_str(); }
  const char* GetExecutionProviderType() const { return Kernel::kProvider; }
  size_t GetInputTypeCount() const { return Kernel::kInputs; }
  size_t GetOutputTypeCount() const { return Kernel::kOutputs; }

  ONNXTensorElementDataType GetInputType(size_t i) const {
    if (is_weight(i))
      return ONNX_TENSOR_ELEMENT_DATA_TYPE_UNDEFINED;  // several, which the kernel checks
    return static_cast<int>(i) >= Kernel::kStatesAt ? Kernel::kState
                                                    : ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT;
  }
  OrtMemType GetInputMemoryType(size_t i) const {
    return is_weight(i) ? Kernel::kWeightMemory : OrtMemTypeDefault;
  }
  ONNXTensorElementDataType GetOutputType(size_t i) const {
    return static_cast<int>(i) >= Kernel::kOutputs - Kernel::kStates
               ? Kernel::kState
               : ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT;
  }

  void infer(const ShapeInference& shapes) const {
    for (int k = 0; k < Kernel::kSequences; k++) shapes.copy(0, k);
    if (Kernel::kRecurrent) shapes.copy(Kernel::kSpikesAt, Kernel::kSequences);
    for (int k = 0; k < Kernel::kStates; k++)
      shapes.copy(Kernel::kStatesAt + k, Kernel::kOutputs - Kernel::kStates + k);
  }

 private:
  static bool is_weight(size_t i) {
    const int index = static_cast<int>(i);
    return Kernel::kRecurrent && index >= Kernel::kWeightsAt &&
           index < Kernel::kWeightsAt + Kernel::kCurrents;
  }
};

#if !defined(SYNAPSE_CUDA)
// The kernels of this library for one op.
template <class E, Regime regime, Kind kind>
using NeuronKernels = std::tuple<NeuronKernel<E, regime, kind>>;

// The neuron of a fused op.
template <class E, Regime regime>
class FusedNeuronOf final : public FusedNeuron {
 public:
  using Kernel = NeuronKernel<E, regime, Kind::spikes>;

  explicit FusedNeuronOf(const OrtKernelInfo* info) : kernel_(info) {}

  std::unique_ptr<FusedNeuronCall> call(const Ort::KernelContext& context,
                                        const std::vector<int64_t>& shape,
                                        int shift) const override {
    return std::make_unique<typename Kernel::FusedCall>(kernel_, context, shape, shift);
  }

 private:
  const Kernel kernel_;
};
#endif

// Registers all kernels of an equation, in the regimes that it has.
template <class E, Regime... regimes>
struct RegisterNeuron {
  RegisterNeuron() { (add_regime<regimes>(), ...); }

 private:
  template <Regime regime>
  static void add_regime() {
    add(static_cast<NeuronKernels<E, regime, Kind::spikes>*>(nullptr));
#if !defined(SYNAPSE_CUDA)
    using Node = NeuronNode<E, regime, Kind::spikes>;
    register_fused_dense({Node::name(), E::currents, Node::kInputs - E::currents, E::states,
                          Node::kState,
                          [](const OrtKernelInfo* info) -> std::unique_ptr<FusedNeuron> {
                            return std::make_unique<FusedNeuronOf<E, regime>>(info);
                          }});
#endif
    if constexpr (regime != Regime::biased && regime != Regime::normed) {
      add(static_cast<NeuronKernels<E, regime, Kind::dynamics>*>(nullptr));
      add(static_cast<NeuronKernels<E, regime, Kind::recurrent>*>(nullptr));
    }
  }
  template <class... Kernel>
  static void add(std::tuple<Kernel...>*) {
    (add_one<Kernel>(), ...);
  }
  template <class Kernel>
  static void add_one() {
    static const NeuronOp<Kernel> op;
    RegisterOp(op, Kernel::name().c_str());
  }
};

}  // namespace synapse
