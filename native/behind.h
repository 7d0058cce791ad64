// Neurons as a synapse sees them that computes their currents itself, so that these never reach
// memory.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "common.h"

namespace synapse {

// The neurons of one call; their outputs are there already.
class NeuronCall {
 public:
  virtual ~NeuronCall() = default;

  // Take neurons first, first + 1, ... (of a sample's, behind those of the samples before) through
  // some steps, when they have been taken through all before `begin`. The current of neuron
  // first + i is x[k][step * stride + i], counted from `begin` on. Up to 512 neurons.
  virtual void take(int64_t begin, int64_t steps, int64_t first, int count, const float* const* x,
                    int64_t stride) const = 0;

  // Take all neurons through all of time; x[k] is (T, N, C).
  virtual void take_all(const Ort::KernelContext& context, const float* const* x) const = 0;
};

// A neuron's node: what it has of attributes.
class Neuron {
 public:
  virtual ~Neuron() = default;

  // Open a call for currents of a shape (T, N, C). The inputs behind the currents stand `shift`
  // places further behind than those of the neuron alone.
  virtual std::unique_ptr<NeuronCall> call(const Ort::KernelContext& context,
                                           const std::vector<int64_t>& shape, int shift) const = 0;
};

struct NeuronKind {
  std::string name;
  int currents, inputs, states;  // inputs: parameters and states, without the currents
  ONNXTensorElementDataType state;
  std::unique_ptr<Neuron> (*make)(const OrtKernelInfo* info);
};

// Register the op of a dense synapse with such a neuron behind it.
void behind_dense(const NeuronKind& kind);

}  // namespace synapse
