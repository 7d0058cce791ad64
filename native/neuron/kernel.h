// Neurons on the processor: a block of neurons at a time, and with feedback a sample at a time.
//
// A kernel takes one block of neurons through all time steps before the next block, so that the
// states stay in the first-level cache. The compiler vectorises the loop over the neurons of a
// block.
#pragma once

#include <algorithm>
#include <cstdint>
#include <iterator>
#include <type_traits>
#include <vector>

#include "base/call.h"
#include "base/compiler.h"
#include "neuron/equation.h"
#include "neuron/fusion.h"
#include "neuron/node.h"

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
    const ParameterValues& values = args.parameter[k];
    if (values.size == 1) {
      const auto shared = block.a.fraction(values.data[0], E::parameters[k].decay, block.fits);
      std::fill_n(block.parameter[k], count, shared);
      continue;
    }
    for (int i = 0; i < count; i++) {
      const float value = args.value(values, first + i);
      block.parameter[k][i] = block.a.fraction(value, E::parameters[k].decay, block.fits);
    }
  }
  if (args.norm[0].data == nullptr) {
    std::fill_n(block.bias, count, args.bias(block.a, first, block.magnitudes[0]));
  } else {
    for (int i = 0; i < count; i++)
      block.bias[i] = args.bias(block.a, first + i, block.magnitudes[i]);
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

// sums[o] = x[o] + sums[o] * scale[o]
struct AddFeedback {
  SYNAPSE_CLONES static void run(const float* x, const float* scale, bool shared, float* sums,
                                 int64_t channels) {
    const float first = scale[0];
    SYNAPSE_INDEPENDENT
    for (int64_t o = 0; o < channels; o++) sums[o] = x[o] + sums[o] * (shared ? first : scale[o]);
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

// Takes one sample with feedback through all time steps, all blocks through a step before any takes
// the next, because every neuron may feed every other. False where a number was out of range, as in
// RunBlock.
template <class E, class A, bool graded>
bool run_recurrent(const NeuronArguments<E>& args, const Feedback<E>& feedback, int64_t item) {
  const int64_t channels = args.sample, offset = item * channels;
  const int64_t count = (channels + kBlockNeurons - 1) / kBlockNeurons;
  std::vector<NeuronBlock<E, A>> blocks(count);
  std::vector<float> currents(E::currents * channels);
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
      const WeightScale& scale = feedback.scale[k];
      FeedbackSums::run(spikes, feedback.matrix[k]->data(), sums, channels);
      AddFeedback::run(args.x[k] + at, scale.values, scale.shared, sums, channels);
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
  for (int64_t b = 0; b < count; b++)
    if (!in_range(blocks[b], size(b))) return false;
  for (int64_t b = 0; b < count; b++)
    store_block(args, blocks[b], offset + b * kBlockNeurons, size(b));
  std::copy_n(spikes, channels, feedback.last_spikes + offset);
  return true;
}

template <class E, Regime regime, Kind kind>
class NeuronKernel : public NeuronNode<E, regime, kind> {
 public:
  using Node = NeuronNode<E, regime, kind>;
  static constexpr const char* kProvider = nullptr;  // ONNX Runtime's default, the processor
  static constexpr OrtMemType kWeightMemory = OrtMemTypeDefault;

  explicit NeuronKernel(const OrtKernelInfo* info) : Node(info) {}

  // A call whose currents come from a fused synapse.
  class FusedCall final : public FusedNeuronCall {
   public:
    FusedCall(const NeuronKernel& kernel, const Ort::KernelContext& context, const Shape& shape,
              int shift)
        : args_(kernel.read_arguments(context, shape, shift)) {}

    void run(int64_t begin, int64_t steps, int64_t first, int count, const float* const* x,
             int64_t stride) const override {
      NeuronArguments<E> args = args_;
      std::copy_n(x, E::currents, args.x);
      args.stride = stride;
      args.origin = first;
      args.steps = steps;
      args.out[0] += begin * args.neurons;
      if (begin > 0) std::copy(std::begin(args.last), std::end(args.last), args.start);
      NeuronKernel::run_block(args, first, count);
    }

    void run_all(const Ort::KernelContext& context, const float* const* x) const override {
      NeuronArguments<E> args = args_;
      std::copy_n(x, E::currents, args.x);
      run_blocks(context, args);
    }

   private:
    const NeuronArguments<E> args_;
  };

  void compute(const Ort::KernelContext& context) const override {
    const NeuronArguments<E> args = this->read_arguments(context);
    if constexpr (Node::kRecurrent) {
      run_samples(context, args, this->read_feedback(context, args));
    } else {
      run_blocks(context, args);
    }
  }

 private:
  template <class A>
  static bool try_block(const NeuronArguments<E>& args, int64_t first, int count) {
    if constexpr (kind != Kind::dynamics)  // traces do not depend on the value of a spike
      if (args.graded) return RunBlock<E, A, kind, true>::run(args, first, count);
    return RunBlock<E, A, kind, false>::run(args, first, count);
  }

  // Takes a block through all time steps.
  static void run_block(const NeuronArguments<E>& args, int64_t first, int count) {
    if (!try_block<FastArithmetic<regime>>(args, first, count))
      try_block<ExactArithmetic<regime>>(args, first, count);
  }

  static void run_blocks(const Ort::KernelContext& context, const NeuronArguments<E>& args) {
    // blocks of equal size, and at least four where there are enough neurons for several threads
    int64_t size = std::min<int64_t>(kBlockNeurons, (args.neurons / 4 + 63) / 64 * 64);
    size = std::max<int64_t>(size, 64);
    parallel_blocks(context, args.neurons, size, args.steps, [&](int64_t first, int64_t count) {
      run_block(args, first, static_cast<int>(count));
    });
  }

  static void run_samples(const Ort::KernelContext& context, const NeuronArguments<E>& args,
                          const Feedback<E>& feedback) {
    const int64_t samples = args.neurons / std::max<int64_t>(args.channels, 1);
    parallel(context, samples, 1, [&](int64_t from, int64_t to) {
      for (int64_t item = from; item < to; item++)
        if (!recurrent_sample<FastArithmetic<regime>>(args, feedback, item))
          recurrent_sample<ExactArithmetic<regime>>(args, feedback, item);
    });
  }

  template <class A>
  static bool recurrent_sample(const NeuronArguments<E>& args, const Feedback<E>& feedback,
                               int64_t item) {
    if (args.graded) return run_recurrent<E, A, true>(args, feedback, item);
    return run_recurrent<E, A, false>(args, feedback, item);
  }
};

}  // namespace synapse
