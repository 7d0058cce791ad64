// Resonate-and-fire neuron after Izhikevich with an adaptive threshold:
// z[t] = (cos_decay + i sin_decay) z[t-1] + x[t], never reset;
// th[t] = threshold + (1 - threshold_decay) (th[t-1] - threshold);
// r[t] = (1 - refractory_decay) r[t-1]; s[t] = 1 where im z[t] >= th[t] + r[t], else 0 (graded:
// im z[t]); where it spiked, r[t] grows by 2 th[t], and then th[t] by threshold_step.
// Source: lava-dl, slayer/neuron/adrf_iz.py and dynamics/adaptive_resonator.py.
#include "neuron/dynamics.h"
#include "neuron/register.h"

namespace synapse {
namespace {

struct AdrfIz : Rotation, Adaptive {
  static constexpr const char* name = "AdrfIz";
  static constexpr int states = 4, traces = 4, graded = 1;
  static constexpr Parameter parameters[] = {{false}, {false}, {}, {}};

  template <class A>
  SYNAPSE_INLINE static bool step(const A& a, const typename A::V* x, const typename A::F* p,
                                  typename A::Bias, typename A::V* s, const typename A::V* c,
                                  typename A::V* trace) {
    rotate(a, x, p, s);
    recover(a, p + 2, s + 2, c);
    for (int k = 0; k < traces; k++) trace[k] = s[k];
    const auto imag = s[1];
    const bool spike = reaches(a, imag, s + 2);
    adapt(a.through_float(imag) >= s[2] + s[3], s + 2, c);
    return spike;
  }
};

const RegisterNeuron<AdrfIz, Regime::slayer, Regime::floating, Regime::loihi> kernels;

}  // namespace
}  // namespace synapse
