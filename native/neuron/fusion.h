// Neurons as a fused synapse sees them. The synapse computes their currents a few at a time and
// hands them over while they are still in a cache; they never reach memory as a tensor.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "base/onnxruntime.h"

namespace synapse {

// The neurons of one call. Their output tensors exist already.
class FusedNeuronCall {
 public:
  virtual ~FusedNeuronCall() = default;

  // Takes neurons [first, first + count), at most 512, of all N * C through `steps` time steps from
  // step `begin` on. They must have been taken through all steps before. The current of neuron
  // first + i in step begin + t is x[k][t * stride + i].
  virtual void run(int64_t begin, int64_t steps, int64_t first, int count, const float* const* x,
                   int64_t stride) const = 0;

  // Takes all neurons through all time steps; x[k] is (T, N, C).
  virtual void run_all(const Ort::KernelContext& context, const float* const* x) const = 0;
};

// The neuron of a fused node, with its attributes.
class FusedNeuron {
 public:
  virtual ~FusedNeuron() = default;

  // Opens a call for currents of a shape (T, N, C). The inputs after the currents are `shift`
  // places further on than in a node of the neuron alone.
  virtual std::unique_ptr<FusedNeuronCall> call(const Ort::KernelContext& context,
                                                const std::vector<int64_t>& shape,
                                                int shift) const = 0;
};

// What a fused op needs to know of a neuron.
struct FusedNeuronType {
  std::string name;
  int currents, inputs, states;  // inputs: parameters and states, without the currents
  ONNXTensorElementDataType state;
  std::unique_ptr<FusedNeuron> (*make)(const OrtKernelInfo* info);
};

// Registers the op that computes a dense synapse and such a neuron (ops/dense_neuron.cpp).
void register_fused_dense(const FusedNeuronType& type);

}  // namespace synapse
