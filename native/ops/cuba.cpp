// Current-based leaky integrate-and-fire neuron:
// u[t] = (1 - current_decay) u[t-1] + x[t]; v[t] = (1 - voltage_decay) v[t-1] + u[t];
// s[t] = 1 where v[t] >= threshold, else 0 (graded: v[t]); v[t] = 0 where it spiked.
// Source: lava-dl, slayer/neuron/cuba.py and dynamics/leaky_integrator.py.
#include "neuron/register.h"

namespace synapse {
namespace {

struct Cuba {
  static constexpr const char* name = "Cuba";
  static constexpr int currents = 1, states = 2, constants = 1, traces = 2, graded = 1;
  static constexpr Parameter parameters[] = {{}, {}};
  static constexpr const char* constant_names[] = {"threshold"};
  static constexpr bool biased = true, compared = true;

  template <class A>
  SYNAPSE_INLINE static bool step(const A& a, const typename A::V* x, const typename A::F* p,
                                  typename A::Bias bias, typename A::V* s, const typename A::V* c,
                                  typename A::V* trace) {
    const auto u = a.current(a.scaled(s[0], p[0]) + x[0]);
    const auto v = a.voltage(a.scaled(s[1], p[1]) + a.biased(u, bias));
    const bool spike = v >= c[0];
    s[0] = trace[0] = u;
    trace[1] = v;
    s[1] = spike ? 0 : v;
    return spike;
  }
};

const RegisterNeuron<Cuba, Regime::slayer, Regime::biased, Regime::normed, Regime::floating,
                     Regime::loihi>
    kernels;

}  // namespace
}  // namespace synapse
