// Leaky integrate-and-fire neuron with an adaptive threshold:
// u[t] = (1 - current_decay) u[t-1] + x[t]; v[t] = (1 - voltage_decay) v[t-1] + u[t], never reset;
// th[t] = threshold + (1 - threshold_decay) (th[t-1] - threshold);
// r[t] = (1 - refractory_decay) r[t-1]; s[t] = 1 where v[t] >= th[t] + r[t], else 0 (graded: v[t]);
// where it spiked, r[t] grows by 2 th[t], and then th[t] by threshold_step.
// Source: lava-dl, slayer/neuron/alif.py and dynamics/adaptive_threshold.py.
#include "neuron/dynamics.h"
#include "neuron/register.h"

namespace synapse {
namespace {

struct Alif : Adaptive {
  static constexpr const char* name = "Alif";
  static constexpr int currents = 1, states = 4, traces = 4, graded = 1;
  static constexpr Parameter parameters[] = {{}, {}, {}, {}};
  static constexpr bool biased = true;

  template <class A>
  SYNAPSE_INLINE static bool step(const A& a, const typename A::V* x, const typename A::F* p,
                                  typename A::Bias bias, typename A::V* s, const typename A::V* c,
                                  typename A::V* trace) {
    const auto u = a.current(a.scaled(s[0], p[0]) + (x[0] + bias));
    const auto v = a.voltage(a.scaled(s[1], p[1]) + a.through_float(u));
    s[0] = trace[0] = u;
    s[1] = trace[1] = v;
    recover(a, p + 2, s + 2, c);
    trace[2] = s[2];
    trace[3] = s[3];
    const bool spike = reaches(a, v, s + 2);
    adapt(a.through_float(v) >= s[2] + s[3], s + 2, c);
    return spike;
  }
};

const RegisterNeuron<Alif, Regime::slayer, Regime::floating, Regime::loihi> kernels;

}  // namespace
}  // namespace synapse
