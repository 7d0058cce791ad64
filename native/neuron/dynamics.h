// Dynamics that several neurons share.
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

// A threshold that grows with every spike, and a refractory response; states th and r, parameters
// threshold_decay and refractory_decay. Source: lava-dl,
// slayer/neuron/dynamics/adaptive_threshold.py.
struct Adaptive {
  static constexpr int constants = 2;
  static constexpr const char* constant_names[] = {"base_threshold", "threshold_step"};
  static constexpr bool compared = false;

  template <class A>
  SYNAPSE_INLINE static void recover(const A& a, const typename A::F* p, typename A::V* s,
                                     const typename A::V* c) {
    s[0] = a.scaled(s[0] - c[0], p[0]) + c[0];
    s[1] = a.scaled(s[1], p[1]);
  }

  // Whether the neuron spikes. lava-dl adds threshold and response in floats, also in fixed point.
  template <class A>
  SYNAPSE_INLINE static bool reaches(const A& a, typename A::V membrane, const typename A::V* s) {
    if constexpr (A::kChecksRange) return membrane >= s[0] + s[1];  // exact in float32 too
    return a.to_float(membrane) >= a.to_float(s[0]) + a.to_float(s[1]);
  }

  template <class V>
  SYNAPSE_INLINE static void adapt(bool spiked, V* s, const V* c) {
    const V threshold = s[0], refractory = s[1];
    s[0] = spiked ? threshold + c[1] : threshold;
    s[1] = spiked ? refractory + threshold * 2 : refractory;
  }
};

}  // namespace synapse
