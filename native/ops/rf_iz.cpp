// Resonate-and-fire neuron after Izhikevich:
// z[t] = (cos_decay + i sin_decay) z[t-1] + x[t]; s[t] = 1 where im z[t] >= threshold, else 0
// (graded: im z[t]); where it spiked, z[t] = i (threshold - unit), the constant `below`.
// Source: lava-dl, slayer/neuron/rf_iz.py.
#include "neuron/dynamics.h"
#include "neuron/register.h"

namespace synapse {
namespace {

struct RfIz : Rotation {
  static constexpr const char* name = "RfIz";
  static constexpr int states = 2, constants = 2, traces = 2, graded = 1;
  static constexpr Parameter parameters[] = {{false}, {false}};
  static constexpr const char* constant_names[] = {"threshold", "below"};
  static constexpr bool compared = true;

  template <class A>
  SYNAPSE_INLINE static bool step(const A& a, const typename A::V* x, const typename A::F* p,
                                  typename A::Bias, typename A::V* s, const typename A::V* c,
                                  typename A::V* trace) {
    rotate(a, x, p, s);
    const auto real = s[0], imag = s[1];
    const bool spike = imag >= c[0];
    trace[0] = real;
    trace[1] = imag;
    s[0] = spike ? 0 : real;
    s[1] = spike ? c[1] : a.through_float(imag);  // lava-dl's reset computes it in float32
    return spike;
  }
};

const RegisterNeuron<RfIz, Regime::slayer, Regime::floating, Regime::loihi> kernels;

}  // namespace
}  // namespace synapse
