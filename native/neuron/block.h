// Blocks of neurons on the processor.
//
// A kernel takes one block of neurons through all time steps before the next block, so that the
// states stay in the first-level cache. The compiler vectorises the loop over the neurons of a
// block.
#pragma once

#include <algorithm>
#include <cstdint>
#include <iterator>
#include <type_traits>

#include "base/compiler.h"
#include "neuron/arguments.h"
#include "neuron/equation.h"

namespace synapse {

constexpr int kBlockNeurons = 512;  // at most

// The states and parameters of a block of neurons.
template <class E, class A>
struct NeuronBlock {
  alignas(64) typename A::V state[E::states][kBlockNeurons];
  alignas(64) typename A::F parameter[std::size(E::parameters)][kBlockNeurons];
  alignas(64) typename A::Bias bias[kBlockNeurons];
  alignas(64) int32_t magnitudes[kBlockNeurons];
  typename A::V constant[E::constants + 1];
  A a;
  bool fits;
};

template <class E, class A>
SYNAPSE_INLINE void load_block(const NeuronArguments<E>& args, NeuronBlock<E, A>& block,
                               int64_t first, int count) {
  block.a.scale = args.scale;
  block.fits = true;
  for (int i = 0; i < count; i++) block.magnitudes[i] = 0;
  for (size_t k = 0; k < std::size(E::parameters); k++) {
    const float* values = args.parameter[k];
    const int64_t size = args.parameter_size[k];
    if (size == 1) {
      const auto shared = block.a.fraction(values[0], E::parameters[k].decay, block.fits);
      std::fill_n(block.parameter[k], count, shared);
      continue;
    }
    for (int i = 0; i < count; i++) {
      const float value = parameter_value(values, size, args.sample, args.channels, first + i);
      block.parameter[k][i] = block.a.fraction(value, E::parameters[k].decay, block.fits);
    }
  }
  if (args.norm[0] == nullptr) {
    std::fill_n(block.bias, count, bias_value(args, block.a, first, block.magnitudes[0]));
  } else {
    for (int i = 0; i < count; i++)
      block.bias[i] = bias_value(args, block.a, first + i, block.magnitudes[i]);
  }
  for (int k = 0; k < E::states; k++) {
    const auto* start = static_cast<const typename A::Carried*>(args.start[k]) + first;
    SYNAPSE_INDEPENDENT
    for (int i = 0; i < count; i++)
      block.state[k][i] = block.a.start(start[i], block.magnitudes[i]);
  }
  for (int k = 0; k < E::constants; k++) {
    if constexpr (std::is_same_v<A, Floating>) {
      block.constant[k] = block.a.constant(args.float_constant[k]);
    } else {
      block.constant[k] = block.a.constant(args.integer_constant[k]);
      const int64_t value = args.integer_constant[k];
      if (!E::compared && (value <= -kNarrowLimit || value >= kNarrowLimit)) block.fits = false;
    }
  }
}

template <class E, class A>
SYNAPSE_INLINE void store_block(const NeuronArguments<E>& args, const NeuronBlock<E, A>& block,
                                int64_t first, int count) {
  for (int k = 0; k < E::states; k++) {
    auto* last = static_cast<typename A::Carried*>(args.last[k]) + first;
    for (int i = 0; i < count; i++) last[i] = static_cast<typename A::Carried>(block.state[k][i]);
  }
}

// One time step of a block: reads currents from x and writes spikes or traces to out.
template <class E, class A, Kind kind, bool graded>
SYNAPSE_INLINE void step_block(NeuronBlock<E, A>& block, const float* const* x, float* const* out,
                               int count) {
  using V = typename A::V;
  const A a = block.a;
  SYNAPSE_INDEPENDENT
  for (int i = 0; i < count; i++) {
    V state[E::states];
    typename A::F parameter[std::size(E::parameters)];
    float in[E::currents], result[kSequenceOutputs<E, kind>];
    int32_t magnitudes = 0;
    unroll<E::currents>([&](auto k) SYNAPSE_LAMBDA { in[k] = x[k][i]; });
    unroll<E::states>([&](auto k) SYNAPSE_LAMBDA { state[k] = block.state[k][i]; });
    unroll<std::size(E::parameters)>([&](auto k)
                                         SYNAPSE_LAMBDA { parameter[k] = block.parameter[k][i]; });
    step_neuron<E, A, kind>(a, in, parameter, block.bias[i], state, block.constant, result,
                            magnitudes, graded);
    unroll<E::states>([&](auto k) SYNAPSE_LAMBDA { block.state[k][i] = state[k]; });
    if constexpr (A::kChecksRange) block.magnitudes[i] |= magnitudes;
    unroll<kSequenceOutputs<E, kind>>([&](auto k) SYNAPSE_LAMBDA { out[k][i] = result[k]; });
  }
}

// Whether all numbers were in the range of the arithmetic.
template <class E, class A>
SYNAPSE_INLINE bool in_range(const NeuronBlock<E, A>& block, int count) {
  if constexpr (!A::kChecksRange) return true;
  int32_t magnitudes = 0;
  for (int i = 0; i < count; i++) magnitudes |= block.magnitudes[i];
  return block.fits && magnitudes >= 0 && magnitudes < kNarrowLimit;
}

// Takes a block through all time steps. False where a number was out of range: then the caller
// repeats the block in ExactArithmetic. No last states are written before that is known, because
// they may lie in the same memory as the states to start from (FusedNeuronCall::run).
template <class E, class A, Kind kind, bool graded>
struct RunBlock {
  SYNAPSE_CLONES static bool run(const NeuronArguments<E>& args, int64_t first, int count) {
    NeuronBlock<E, A> block;
    load_block(args, block, first, count);
    if (!in_range(block, count)) return false;
    for (int64_t t = 0; t < args.steps; t++) {
      const int64_t at = t * args.neurons + first;
      const int64_t from = t * args.stride + first - args.origin;
      const float* x[E::currents];
      float* out[kSequenceOutputs<E, kind>];
      for (int k = 0; k < E::currents; k++) x[k] = args.x[k] + from;
      for (int k = 0; k < kSequenceOutputs<E, kind>; k++) out[k] = args.out[k] + at;
      step_block<E, A, kind, graded>(block, x, out, count);
    }
    if (!in_range(block, count)) return false;
    store_block(args, block, first, count);
    return true;
  }
};

}  // namespace synapse
