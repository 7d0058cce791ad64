// Resonate-and-fire neuron with an adaptive phase threshold:
// z[t] = (cos_decay + i sin_decay) z[t-1] + x[t], never reset;
// th[t] = threshold + (1 - threshold_decay) (th[t-1] - threshold);
// r[t] = (1 - refractory_decay) r[t-1]; s[t] = 1 where im z[t] >= 0 and im z[t-1] < 0 and
// re z[t] >= th[t] + r[t], else 0 (graded: re z[t]); where it spiked, r[t] grows by 2 th[t], and
// then th[t] by threshold_step.
// Source: lava-dl, slayer/neuron/adrf.py and dynamics/adaptive_phase_th.py.
#include "neuron/dynamics.h"
#include "neuron/register.h"

namespace synapse {
namespace {

struct Adrf : Rotation, Adaptive {
  static constexpr const char* name = "Adrf";
  static constexpr int states = 4, traces = 4, graded = 0;
  static constexpr Parameter parameters[] = {{false}, {false}, {}, {}};

  template <class A>
  SYNAPSE_INLINE static bool step(const A& a, const typename A::V* x, const typename A::F* p,
                                  typename A::Bias, typename A::V* s, const typename A::V* c,
                                  typename A::V* trace) {
    const auto before = s[1];
    rotate(a, x, p, s);
    recover(a, p + 2, s + 2, c);
    for (int k = 0; k < traces; k++) trace[k] = s[k];
    const auto real = s[0];
    const bool crossed = (s[1] >= 0) & (before < 0);
    const bool spike = crossed & reaches(a, real, s + 2);
    adapt(crossed & (a.through_float(real) >= s[2] + s[3]), s + 2, c);
    return spike;
  }
};

const RegisterNeuron<Adrf, Regime::slayer, Regime::floating, Regime::loihi> kernels;

}  // namespace
}  // namespace synapse
