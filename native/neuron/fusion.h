// Neurons as a fused synapse sees them. The synapse computes their currents a few at a time and
// hands them over while they are still in a cache; they never reach memory as a tensor.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "base/op.h"

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

  // Where all currents of part k may be written before `run_all`; null where anywhere else.
  virtual float* currents(int) const { return nullptr; }

  // Takes all neurons through all time steps; x[k] is (T, N, C).
  virtual void run_all(const Ort::KernelContext& context, const float* const* x) const = 0;
};

// Opens a call of a fused node, for currents of a shape (T, N, C). The inputs after the currents
// are `shift` places further on than in a node of the neuron alone.
using FusedNeuron = std::function<std::unique_ptr<FusedNeuronCall>(
    const Ort::KernelContext& context, const Shape& shape, int shift)>;

// Registers the op that computes a dense synapse and a neuron (ops/dense.cpp). `make` reads
// the attributes of a fused node.
void register_fused_dense(const Declaration& neuron, int currents,
                          FusedNeuron (*make)(const OrtKernelInfo* info));

}  // namespace synapse
