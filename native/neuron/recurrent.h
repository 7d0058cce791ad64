// Neurons with feedback on the processor. All blocks of a sample take a time step before any takes
// the next, because every neuron may feed every other.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "base/compiler.h"
#include "neuron/block.h"

namespace synapse {

// sums[o] = sum over c of spikes[c] * matrix[c][o]; silent neurons cost nothing.
struct FeedbackSums {
  SYNAPSE_CLONES static void run(const float* spikes, const float* matrix, float* sums,
                                 int64_t channels) {
    std::fill_n(sums, channels, 0.0f);
    for (int64_t c = 0; c < channels; c++) {
      const float spike = spikes[c];
      if (spike == 0.0f) continue;
      const float* weights = matrix + c * channels;
      SYNAPSE_INDEPENDENT
      for (int64_t o = 0; o < channels; o++) sums[o] += spike * weights[o];
    }
  }
};

// One time step of a block. It is a function of its own so that it is compiled for several
// instruction sets.
template <class E, class A, bool graded>
struct StepBlock {
  SYNAPSE_CLONES static void run(NeuronBlock<E, A>& block, const float* const* x, float* const* out,
                                 int count) {
    step_block<E, A, Kind::recurrent, graded>(block, x, out, count);
  }
};

// sums[o] = x[o] + sums[o] * weight_scale[o]
struct AddFeedback {
  SYNAPSE_CLONES static void run(const float* x, const float* weight_scale, int64_t scale_count,
                                 float* sums, int64_t count) {
    const float shared = weight_scale[0];
    SYNAPSE_INDEPENDENT
    for (int64_t o = 0; o < count; o++)
      sums[o] = x[o] + sums[o] * (scale_count == 1 ? shared : weight_scale[o]);
  }
};

// Takes one sample through all time steps; false where a number was out of range, as in RunBlock.
template <class E, class A, bool graded>
bool run_recurrent(const NeuronArguments<E>& args, const Feedback<E>& feedback, int64_t item) {
  const int64_t channels = args.sample, offset = item * channels;
  const int64_t count = (channels + kBlockNeurons - 1) / kBlockNeurons;
  std::vector<NeuronBlock<E, A>> blocks(static_cast<size_t>(count));
  std::vector<float> currents(static_cast<size_t>(E::currents * channels));
  const auto size = [&](int64_t b) {
    return static_cast<int>(std::min<int64_t>(kBlockNeurons, channels - b * kBlockNeurons));
  };
  for (int64_t b = 0; b < count; b++) {
    load_block(args, blocks[b], offset + b * kBlockNeurons, size(b));
    if (!in_range(blocks[b], size(b))) return false;
  }
  const float* spikes = feedback.spikes + offset;
  for (int64_t t = 0; t < args.steps; t++) {
    const int64_t at = t * args.neurons + offset;
    for (int k = 0; k < E::currents; k++) {
      float* sums = currents.data() + k * channels;
      FeedbackSums::run(spikes, feedback.matrix[k]->data(), sums, channels);
      AddFeedback::run(args.x[k] + at, feedback.weight_scale[k], feedback.scale_count[k], sums,
                       channels);
    }
    for (int64_t b = 0; b < count; b++) {
      const float* x[E::currents];
      for (int k = 0; k < E::currents; k++)
        x[k] = currents.data() + k * channels + b * kBlockNeurons;
      float* out[1] = {args.out[0] + at + b * kBlockNeurons};
      StepBlock<E, A, graded>::run(blocks[b], x, out, size(b));
    }
    spikes = args.out[0] + at;
  }
  for (int64_t b = 0; b < count; b++) {
    if (!in_range(blocks[b], size(b))) return false;
  }
  for (int64_t b = 0; b < count; b++)
    store_block(args, blocks[b], offset + b * kBlockNeurons, size(b));
  std::copy_n(spikes, channels, feedback.last_spikes + offset);
  return true;
}

}  // namespace synapse
