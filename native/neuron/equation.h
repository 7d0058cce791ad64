// Equations of neurons. An equation, such as ops/cuba.cpp, states one time step of one neuron:
//
//   name, currents, states, constants, traces  the name of the op, and how many it has
//   graded          the trace that is the value of a graded spike
//   parameters      whether each is a decay, and whether it may differ between neurons
//   constant_names  the attributes that hold them
//   biased          whether there is a bias or a norm: inputs after the parameters
//   compared        whether constants are only compared with states
//   step            computes states s and traces from currents x, parameters p, the bias, states s
//                   and constants c; returns whether the neuron spikes
//
// The kernels of an equation, in all regimes, follow from it: see register.h.
#pragma once

#include <cstdint>
#include <type_traits>
#include <utility>

#include "base/compiler.h"
#include "neuron/arithmetic.h"

namespace synapse {

struct Parameter {
  bool decay = true;        // the step gets 1 - value in place of the value
  bool per_neuron = false;  // may have one value for every neuron of a sample
};

// The kernels of an equation: spikes, the traces of its variables over time, and spikes that are
// fed back to the currents of the next step.
enum class Kind { spikes, dynamics, recurrent };

// The number of outputs over time.
template <class E, Kind kind>
constexpr int kSequenceOutputs = kind == Kind::dynamics ? E::traces : 1;

// The arithmetic of a regime, in `Fixed` bits for the regimes in fixed point.
template <Regime regime, template <bool> class Fixed>
using ArithmeticFor =
    std::conditional_t<regime == Regime::floating, Floating,
                       std::conditional_t<regime == Regime::normed, Normed<Fixed<false>>,
                                          Fixed<regime == Regime::loihi>>>;
// `FastArithmetic` may have to be repeated in `ExactArithmetic`.
template <Regime regime>
using FastArithmetic = ArithmeticFor<regime, Narrow>;
template <Regime regime>
using ExactArithmetic = ArithmeticFor<regime, Wide>;

// Calls f(0), f(1), ... f(n - 1), unrolled: GCC does not vectorise a loop that contains another.
template <class F, size_t... k>
SYNAPSE_INLINE void unroll(const F& f, std::index_sequence<k...>) {
  (f(std::integral_constant<size_t, k>{}), ...);
}
template <size_t n, class F>
SYNAPSE_INLINE void unroll(const F& f) {
  unroll(f, std::make_index_sequence<n>{});
}

// One time step of one neuron: reads its currents from x and writes its spike or its traces to out.
template <class E, class A, Kind kind>
SYNAPSE_INLINE void step_neuron(const A& a, const float* x, const typename A::F* parameter,
                                typename A::Bias bias, typename A::V* state,
                                const typename A::V* constant, float* out, int32_t& magnitudes,
                                bool graded) {
  typename A::V current[E::currents], trace[E::traces > 1 ? E::traces : 1];
  unroll<E::currents>([&](auto k) SYNAPSE_LAMBDA { current[k] = a.to_state(x[k], magnitudes); });
  const bool spike = E::template step<A>(a, current, parameter, bias, state, constant, trace);
  unroll<E::states>([&](auto k) SYNAPSE_LAMBDA { a.check_range(state[k], magnitudes); });
  if constexpr (kind == Kind::dynamics) {
    unroll<E::traces>([&](auto k) SYNAPSE_LAMBDA { out[k] = a.to_float(trace[k]); });
  } else {
    out[0] = spike ? (graded ? a.to_float(trace[E::graded]) : 1.0f) : 0.0f;
  }
}

}  // namespace synapse
