// The arguments of a call of a neuron, as plain pointers and sizes that a GPU can take as well.
#pragma once

#include <cstdint>
#include <iterator>
#include <memory>
#include <vector>

#include "base/compiler.h"
#include "neuron/equation.h"

namespace synapse {

template <class E>
struct NeuronArguments {
  int64_t steps, neurons, sample, channels;  // neurons = batch * sample
  // the current of a neuron at a step is x[step * stride + neuron - origin]
  int64_t stride, origin;
  float scale;
  bool graded;
  const float* x[E::currents];
  const float* parameter[std::size(E::parameters)];
  int64_t parameter_size[std::size(E::parameters)];
  const float* norm[2];  // bias and gain; null where the equation or the regime has none
  int64_t norm_size[2];
  const void* start[E::states];
  void* last[E::states];
  float* out[E::traces > 1 ? E::traces : 1];
  int64_t integer_constant[E::constants + 1];
  float float_constant[E::constants + 1];
};

// Feedback: current[t] = x[t] + weight_scale * (matrix s[t-1]), within a sample (C,).
template <class E>
struct Feedback {
  std::shared_ptr<const std::vector<float>>
      matrix[E::currents];  // (C, C), one row for each spiking neuron
  const float* weight_scale[E::currents];
  int64_t scale_count[E::currents];  // one, or one for each channel
  const float* spikes;
  float* last_spikes;
};

// The value of a parameter for a neuron. There is one for all, one for each channel, or one for
// each neuron of a sample.
SYNAPSE_INLINE float parameter_value(const float* values, int64_t size, int64_t sample,
                                     int64_t channels, int64_t neuron) {
  if (size == 1) return values[0];
  const int64_t within = neuron % sample;
  return size == sample ? values[within] : values[within / (sample / channels)];
}

// The bias of a neuron, or its norm.
template <class E, class A>
SYNAPSE_INLINE typename A::Bias bias_value(const NeuronArguments<E>& args, const A& a,
                                           int64_t neuron, int32_t& magnitudes) {
  float values[2] = {0.0f, 1.0f};
  for (int k = 0; k < 2; k++)
    if (args.norm[k] != nullptr)
      values[k] =
          parameter_value(args.norm[k], args.norm_size[k], args.sample, args.channels, neuron);
  return a.bias(values[0], values[1], magnitudes);
}

}  // namespace synapse
