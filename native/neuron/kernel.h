// The kernel of a neuron for the processor.
#pragma once

#include <algorithm>
#include <cstdint>
#include <iterator>
#include <vector>

#include "base/parallel.h"
#include "neuron/block.h"
#include "neuron/fusion.h"
#include "neuron/node.h"
#include "neuron/recurrent.h"

namespace synapse {

template <class E, Regime regime, Kind kind>
class NeuronKernel : public NeuronNode<E, regime, kind> {
 public:
  using Node = NeuronNode<E, regime, kind>;
  static constexpr const char* kProvider = nullptr;  // ONNX Runtime's default, the processor
  static constexpr OrtMemType kWeightMemory = OrtMemTypeDefault;

  explicit NeuronKernel(const OrtKernelInfo* info) : Node(Ort::ConstKernelInfo(info)) {}

  // A call whose currents come from a fused synapse.
  class FusedCall final : public FusedNeuronCall {
   public:
    FusedCall(const NeuronKernel& kernel, const Ort::KernelContext& context,
              const std::vector<int64_t>& shape, int shift)
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

  OrtStatusPtr ComputeV2(OrtKernelContext* raw) const {
    return guarded(Node::name().c_str(), [&] {
      const Ort::KernelContext context(raw);
      const NeuronArguments<E> args = this->read_arguments(context);
      if constexpr (Node::kRecurrent) {
        run_samples(context, args, this->read_feedback(context, args));
      } else {
        run_blocks(context, args);
      }
    });
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
    const int64_t blocks = (args.neurons + size - 1) / size;
    // waking a thread pays from a few microseconds of work
    const int64_t least = (1 << 14) / (size * std::max<int64_t>(args.steps, 1)) + 1;
    parallel(context, blocks, least, [&](int64_t from, int64_t to) {
      for (int64_t b = from; b < to; b++) {
        const int64_t first = b * size;
        run_block(args, first, static_cast<int>(std::min(size, args.neurons - first)));
      }
    });
  }

  static void run_samples(const Ort::KernelContext& context, const NeuronArguments<E>& args,
                          const Feedback<E>& feedback) {
    parallel(context, args.neurons / std::max<int64_t>(args.channels, 1), 1,
             [&](int64_t from, int64_t to) {
               for (int64_t item = from; item < to; item++) {
                 if (!recurrent_sample<FastArithmetic<regime>>(args, feedback, item))
                   recurrent_sample<ExactArithmetic<regime>>(args, feedback, item);
               }
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
