// From an equation to registered kernels. A file of native/ops declares a static object
// RegisterNeuron<Equation, regimes...>, and has kernels of the spikes, the traces and the recurrent
// spikes in each of these regimes; on the processor also the ops that are fused with a dense
// synapse. The library for CUDA compiles the same files with SYNAPSE_CUDA defined.
#pragma once

#include <algorithm>
#include <memory>
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

// The op of a kernel.
template <class K>
Declaration neuron_op() {
  Types inputs(K::kInputs, kFloat), outputs(K::kOutputs, kFloat);
  if (K::kRecurrent) std::fill_n(inputs.begin() + K::kWeightsAt, K::kCurrents, kAny);
  std::fill(inputs.begin() + K::kStatesAt, inputs.end(), K::kState);
  std::fill(outputs.end() - K::kStates, outputs.end(), K::kState);
  std::vector<int> copied(K::kSequences, 0);  // the inputs whose shapes the outputs have
  if (K::kRecurrent) copied.push_back(K::kSpikesAt);
  for (int k = 0; k < K::kStates; k++) copied.push_back(K::kStatesAt + k);
  return {K::name(),      inputs,       outputs,         copies(copied),
          make_kernel<K>, K::kProvider, K::kWeightMemory};
}

// Registers all kernels of an equation, in the regimes that it has.
template <class E, Regime... regimes>
struct RegisterNeuron {
  RegisterNeuron() { (add_regime<regimes>(), ...); }

 private:
  template <Regime regime>
  static void add_regime() {
    add<regime, Kind::spikes>();
#if !defined(SYNAPSE_CUDA)
    using Spikes = NeuronKernel<E, regime, Kind::spikes>;
    register_fused_dense(
        neuron_op<Spikes>(), E::currents, [](const OrtKernelInfo* info) -> FusedNeuron {
          return [kernel = std::make_shared<const Spikes>(info)](const Ort::KernelContext& context,
                                                                 const Shape& shape, int shift) {
            return std::make_unique<typename Spikes::FusedCall>(*kernel, context, shape, shift);
          };
        });
#endif
    if constexpr (regime != Regime::biased && regime != Regime::normed) {
      add<regime, Kind::dynamics>();
      add<regime, Kind::recurrent>();
    }
  }

  template <Regime regime, Kind kind>
  static void add() {
#if defined(SYNAPSE_CUDA)
    RegisterOp(neuron_op<GridKernel<E, regime, kind, EmulatedDevice>>());
#if defined(__CUDACC__)
    RegisterOp(neuron_op<GridKernel<E, regime, kind, CudaDevice>>());
#endif
#else
    RegisterOp(neuron_op<NeuronKernel<E, regime, kind>>());
#endif
  }
};

}  // namespace synapse
