// The damped rotation that all resonate-and-fire neurons share.
#pragma once

#include "neuron/equation.h"

namespace synapse {

// A damped rotation: z[t] = (cos_decay + i sin_decay) z[t-1] + x[t]. Parameters are sin_decay and
// cos_decay, states and currents a real and an imaginary part. Source: lava-dl,
// slayer/neuron/dynamics/resonator.py.
struct Rotation {
  static constexpr int currents = 2;
  static constexpr bool biased = false;

  template <class A>
  SYNAPSE_INLINE static void rotate(const A& a, const typename A::V* x, const typename A::F* p,
                                    typename A::V* s) {
    const auto sine = p[0], cosine = p[1];
    const auto real = a.scaled(s[0], cosine) - a.scaled(s[1], sine) + x[0];
    const auto imag = a.scaled(s[0], sine) + a.scaled(s[1], cosine) + x[1];
    s[0] = a.voltage(real);
    s[1] = a.voltage(imag);
  }
};

}  // namespace synapse
