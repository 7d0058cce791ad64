// Leaky integrate-and-fire neuron in floats, with four resets:
// u[t] = alpha u[t-1] + gain x[t]; v[t] = beta v[t-1] + u[t] + drive; s[t] = 1 where v[t] >=
// v_threshold, else 0 (graded: v[t] - v_threshold). "zero": v[t] = v_reset where it spiked;
// "subtract": v[t] -= v_reset there; "delayed": v_reset is taken off v[t+1] where it spiked;
// "delayed_zero": v[t+1] = v_reset there, whatever comes in.
// Source: NIR's CubaLIF in discrete time; the delayed reset is that of snnTorch's Leaky.
#include "neuron/register.h"

namespace synapse {
namespace {

enum class Reset { zero, subtract, delayed, delayed_zero };

template <Reset reset>
struct Lif {
  static constexpr const char* name = reset == Reset::zero       ? "Lif"
                                      : reset == Reset::subtract ? "LifSubtract"
                                      : reset == Reset::delayed  ? "LifDelayed"
                                                                 : "LifDelayedZero";
  static constexpr int currents = 1, states = 2, constants = 0, traces = 3, graded = 2;
  static constexpr Parameter level{false, true};  // no decay; may differ between neurons
  // alpha, beta, gain, drive, v_threshold, v_reset
  static constexpr Parameter parameters[] = {level, level, level, level, level, level};
  static constexpr const char* constant_names[] = {""};
  static constexpr bool biased = false, compared = true;

  template <class A>
  SYNAPSE_INLINE static bool step(const A& a, const typename A::V* x, const typename A::F* p,
                                  typename A::Bias, typename A::V* s, const typename A::V*,
                                  typename A::V* trace) {
    constexpr bool late = reset == Reset::delayed || reset == Reset::delayed_zero;
    constexpr bool zero = reset == Reset::zero || reset == Reset::delayed_zero;
    const auto threshold = p[4], v_reset = p[5];
    const auto u = a.scaled(s[0], p[0]) + a.scaled(x[0], p[2]);
    auto v = a.scaled(s[1], p[1]) + u + p[3];
    const auto value = zero ? v_reset : v - v_reset;
    if (late) v = s[1] >= threshold ? value : v;  // the spike of the step before
    const auto above = v - threshold;
    const bool spike = above >= 0;
    s[0] = trace[0] = u;
    trace[1] = v;
    trace[2] = above;
    s[1] = late ? v : spike ? value : v;
    return spike;
  }
};

const RegisterNeuron<Lif<Reset::zero>, Regime::floating> zero;
const RegisterNeuron<Lif<Reset::subtract>, Regime::floating> subtract;
const RegisterNeuron<Lif<Reset::delayed>, Regime::floating> delayed;
const RegisterNeuron<Lif<Reset::delayed_zero>, Regime::floating> delayed_zero;

}  // namespace
}  // namespace synapse
