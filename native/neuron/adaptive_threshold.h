// The adaptive threshold that several neurons share.
#pragma once

#include "neuron/equation.h"

namespace synapse {

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
