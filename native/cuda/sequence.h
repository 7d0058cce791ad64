// Neurons on a GPU: one launch takes all neurons through a whole sequence.
//
// Each thread takes its neuron through all time steps with the states in registers. Neurons lie
// side by side in memory, so the threads of a warp read and write whole lines. With feedback one
// block of threads takes a sample, with a barrier between two steps.
//
// The step is that of the equation, compiled for the device, in int64. The 32-bit arithmetic of the
// processor multiplies in doubles, of which most GPUs compute a sixty-fourth as many as integers.
#pragma once

#include <algorithm>
#include <cstdint>
#include <iterator>
#include <type_traits>

#include "base/compiler.h"
#include "neuron/equation.h"
#include "neuron/node.h"

namespace synapse {

constexpr int kReadAhead = 8;  // steps or weights that are loaded before the first of them is used

// A grid calls work(phase, block, thread, threads) for every phase, block and thread. Between two
// phases there is a barrier: all threads of a block have ended the first, and each sees what the
// others wrote.
struct GridSize {
  int64_t blocks;
  int threads;  // of a block
};

// The states, parameters and constants of one neuron, in the registers of a thread.
template <class E, class A>
struct NeuronRegisters {
  A a;
  typename A::V state[E::states], constant[E::constants + 1];
  typename A::Bias bias;
  typename A::F parameter[std::size(E::parameters)];

  SYNAPSE_INLINE NeuronRegisters(const NeuronArguments<E>& args, int64_t neuron,
                                 const void* const* states) {
    int32_t magnitudes = 0;
    bool fits = true;
    a.scale = args.scale;
    unroll<std::size(E::parameters)>([&](auto k) SYNAPSE_LAMBDA {
      constexpr bool decay = E::parameters[decltype(k)::value].decay;
      parameter[k] = a.fraction(args.value(args.parameter[k], neuron), decay, fits);
    });
    bias = args.bias(a, neuron, magnitudes);
    unroll<E::states>([&](auto k) SYNAPSE_LAMBDA {
      state[k] = a.start(static_cast<const typename A::Carried*>(states[k])[neuron], magnitudes);
    });
    unroll<E::constants>([&](auto k) SYNAPSE_LAMBDA {
      if constexpr (std::is_same_v<A, Floating>) {
        constant[k] = a.constant(args.float_constant[k]);
      } else {
        constant[k] = a.constant(args.integer_constant[k]);
      }
    });
  }

  SYNAPSE_INLINE void store(const NeuronArguments<E>& args, int64_t neuron) const {
    unroll<E::states>([&](auto k) SYNAPSE_LAMBDA {
      static_cast<typename A::Carried*>(args.last[k])[neuron] =
          static_cast<typename A::Carried>(state[k]);
    });
  }

  template <Kind kind>
  SYNAPSE_INLINE void step(const NeuronArguments<E>& args, const float* x, int64_t at) {
    int32_t magnitudes = 0;
    float out[kSequenceOutputs<E, kind>];
    step_neuron<E, A, kind>(a, x, parameter, bias, state, constant, out, magnitudes, args.graded);
    unroll<kSequenceOutputs<E, kind>>([&](auto k) SYNAPSE_LAMBDA { args.out[k][at] = out[k]; });
  }
};

// Spikes or traces: one thread for each neuron, and one phase.
template <class E, Regime regime, Kind kind>
struct Sequence {
  static constexpr int kThreads = 128;
  NeuronArguments<E> args;

  GridSize size() const { return {(args.neurons + kThreads - 1) / kThreads, kThreads}; }
  SYNAPSE_INLINE int64_t phases() const { return 1; }

  SYNAPSE_INLINE void operator()(int64_t, int64_t block, int thread, int threads) const {
    const int64_t neuron = block * threads + thread;
    if (neuron >= args.neurons) return;
    NeuronRegisters<E, ExactArithmetic<regime>> registers(args, neuron, args.start);
    int64_t t = 0;
    for (; t + kReadAhead <= args.steps; t += kReadAhead) steps<kReadAhead>(registers, t, neuron);
    for (; t < args.steps; t++) steps<1>(registers, t, neuron);
    registers.store(args, neuron);
  }

 private:
  // Takes some steps. All their currents are loaded first, so that the latency of memory is paid
  // once.
  template <int count>
  SYNAPSE_INLINE void steps(NeuronRegisters<E, ExactArithmetic<regime>>& registers, int64_t t,
                            int64_t neuron) const {
    float x[count][E::currents];
    unroll<count>([&](auto j) SYNAPSE_LAMBDA {
      unroll<E::currents>([&](auto k) SYNAPSE_LAMBDA {
        x[j][k] = args.x[k][(t + static_cast<int64_t>(j)) * args.neurons + neuron];
      });
    });
    unroll<count>([&](auto j) SYNAPSE_LAMBDA {
      registers.template step<kind>(args, x[j],
                                    (t + static_cast<int64_t>(j)) * args.neurons + neuron);
    });
  }
};

// Spikes with feedback: one block for each sample, and one phase for each step. The states are kept
// in the output tensors of the last states and not in registers, so that a thread may take several
// neurons.
template <class E, Regime regime>
struct RecurrentSequence {
  static constexpr int kThreads = 512;
  NeuronArguments<E> args;
  const float* matrix[E::currents];  // (C, C), one row for each spiking neuron
  WeightScale scale[E::currents];
  const float* spikes;
  float* last_spikes;

  GridSize size() const {
    const int64_t wanted = (args.channels + 31) / 32 * 32;
    return {args.channels ? args.neurons / args.channels : 0,
            static_cast<int>(std::min<int64_t>(wanted, kThreads))};
  }
  SYNAPSE_INLINE int64_t phases() const { return args.steps + 1; }

  SYNAPSE_INLINE void operator()(int64_t t, int64_t block, int thread, int threads) const {
    const int64_t first = block * args.channels;
    for (int64_t o = thread; o < args.channels; o += threads) {
      const int64_t neuron = first + o, at = (t - 1) * args.neurons + first;
      const float* before = t == 0 ? spikes + first : args.out[0] + at;
      if (t == args.steps) {  // the phase after the last step
        last_spikes[neuron] = before[o];
        if (t == 0)
          NeuronRegisters<E, ExactArithmetic<regime>>(args, neuron, args.start).store(args, neuron);
        continue;
      }
      float x[E::currents];
      unroll<E::currents>([&](auto k) SYNAPSE_LAMBDA {
        const float sum = summed(before, matrix[k] + o);
        x[k] = args.x[k][t * args.neurons + neuron] + sum * scale[k][o];
      });
      NeuronRegisters<E, ExactArithmetic<regime>> registers(args, neuron,
                                                            t == 0 ? args.start : args.last);
      registers.template step<Kind::recurrent>(args, x, t * args.neurons + neuron);
      registers.store(args, neuron);
    }
  }

 private:
  // The sum over c of before[c] * column[c * C]. Its order is that of the processor's kernel,
  // because the sum of floats depends on it. The weights of silent neurons are not read.
  SYNAPSE_INLINE float summed(const float* before, const float* column) const {
    float sum = 0;
    int64_t c = 0;
    for (; c + kReadAhead <= args.channels; c += kReadAhead)
      add_some<kReadAhead>(before + c, column, c, sum);
    for (; c < args.channels; c++) add_some<1>(before + c, column, c, sum);
    return sum;
  }

  template <int count>
  SYNAPSE_INLINE void add_some(const float* before, const float* column, int64_t c,
                               float& sum) const {
    float spike[count];
    unroll<count>([&](auto j) SYNAPSE_LAMBDA { spike[j] = before[j]; });
    unroll<count>([&](auto j) SYNAPSE_LAMBDA {
      if (spike[j] != 0.0f) sum += spike[j] * column[(c + static_cast<int64_t>(j)) * args.channels];
    });
  }
};

}  // namespace synapse
