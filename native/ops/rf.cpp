// Resonate-and-fire neuron with a phase threshold:
// z[t] = (cos_decay + i sin_decay) z[t-1] + x[t], never reset; s[t] = 1 where im z[t] >= 0 and
// im z[t-1] < 0 and re z[t] >= threshold, else 0 (graded: re z[t]).
// Source: lava-dl, slayer/neuron/rf.py and slayer/spike/complex.py.
#include "neuron/dynamics.h"
#include "neuron/register.h"

namespace synapse {
namespace {

struct Rf : Rotation {
  static constexpr const char* name = "Rf";
  static constexpr int states = 2, constants = 1, traces = 2, graded = 0;
  static constexpr Parameter parameters[] = {{false}, {false}};
  static constexpr const char* constant_names[] = {"threshold"};
  static constexpr bool compared = true;

  template <class A>
  SYNAPSE_INLINE static bool step(const A& a, const typename A::V* x, const typename A::F* p,
                                  typename A::Bias, typename A::V* s, const typename A::V* c,
                                  typename A::V* trace) {
    const auto before = s[1];
    rotate(a, x, p, s);
    trace[0] = s[0];
    trace[1] = s[1];
    const bool spike = (s[1] >= 0) & (before < 0) & (s[0] >= c[0]);
    return spike;
  }
};

const RegisterNeuron<Rf, Regime::slayer, Regime::floating, Regime::loihi> kernels;

}  // namespace
}  // namespace synapse
