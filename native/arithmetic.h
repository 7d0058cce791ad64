// The numbers in which a neuron's step is computed; the equations are written once for all of them.
//
// A state of the fixed-point regimes is an integer in units of 1 / scale, and a fraction an integer
// in 4096ths: state * fraction / 4096 is truncated towards zero. `Wide` computes that in 64 bits as
// torch does, wrapping where torch wraps. `Narrow` gives the same integers in 32 bits while every
// state stays below 2**23, which it watches: the product of a state and a fraction is exact in a
// double, and a state below 2**24 in a float.
#pragma once

#include <cmath>
#include <cstdint>

#include "common.h"

namespace synapse {

// `biased` and `normed` are slayer with a norm within the step: one that adds whole numbers, or any
enum class Regime { slayer, biased, normed, floating, loihi };

constexpr int64_t kOne = 4096;             // a fraction of one
constexpr int32_t kNarrowLimit = 1 << 23;  // states of Narrow are below
constexpr int64_t kStateLimit = 1 << 23;   // one more than Loihi's largest state of 24 bits

// What x86 makes of a float that no int64 holds, and torch with it.
SYNAPSE_INLINE int64_t to_int64(float value) {
  const bool fits = value >= -9223372036854775808.0f && value < 9223372036854775808.0f;
  return fits ? static_cast<int64_t>(value) : INT64_MIN;
}

// An int64 that wraps, as torch's does: by its type, for nvcc has no switch that makes int64 do so.
class Wrapping {
 public:
  Wrapping() = default;
  SYNAPSE_INLINE constexpr Wrapping(int64_t value) : value_(value) {}
  SYNAPSE_INLINE explicit constexpr operator int64_t() const { return value_; }
  SYNAPSE_INLINE explicit operator float() const { return static_cast<float>(value_); }

  SYNAPSE_INLINE friend Wrapping operator-(Wrapping a) { return of(0u - a.bits()); }
  SYNAPSE_INLINE friend Wrapping operator+(Wrapping a, Wrapping b) {
    return of(a.bits() + b.bits());
  }
  SYNAPSE_INLINE friend Wrapping operator-(Wrapping a, Wrapping b) {
    return of(a.bits() - b.bits());
  }
  SYNAPSE_INLINE friend Wrapping operator*(Wrapping a, Wrapping b) {
    return of(a.bits() * b.bits());
  }
  SYNAPSE_INLINE friend bool operator<(Wrapping a, Wrapping b) { return a.value_ < b.value_; }
  SYNAPSE_INLINE friend bool operator>(Wrapping a, Wrapping b) { return a.value_ > b.value_; }
  SYNAPSE_INLINE friend bool operator<=(Wrapping a, Wrapping b) { return a.value_ <= b.value_; }
  SYNAPSE_INLINE friend bool operator>=(Wrapping a, Wrapping b) { return a.value_ >= b.value_; }

 private:
  SYNAPSE_INLINE uint64_t bits() const { return static_cast<uint64_t>(value_); }
  SYNAPSE_INLINE static Wrapping of(uint64_t bits) { return static_cast<int64_t>(bits); }

  int64_t value_;
};

// Bring a current back into 24 bits, from the other end (Loihi).
template <class V>
SYNAPSE_INLINE V wrap(V value) {
  const V span = static_cast<V>(2 * kStateLimit), limit = static_cast<V>(kStateLimit);
  const V over = value > limit ? value - span : value;
  return over <= -limit ? over + span : over;
}

// Keep a voltage within 24 bits (Loihi).
template <class V>
SYNAPSE_INLINE V clip(V value) {
  const V limit = static_cast<V>(kStateLimit - 1);
  const V low = value < -limit ? -limit : value;
  return low > limit ? limit : low;
}

// float32, each operation rounded on its own.
struct Floating {
  using V = float;          // states, currents, levels
  using F = float;          // fractions
  using Bias = V;           // what stands where slayer has a norm
  using Carried = float;    // states between calls
  using Attribute = float;  // constants
  static constexpr bool kWatches = false;
  float scale = 1;

  SYNAPSE_INLINE V take(float x, int32_t&) const { return x; }
  SYNAPSE_INLINE float give(V state) const { return state; }
  SYNAPSE_INLINE V scaled(V state, F fraction) const { return state * fraction; }
  SYNAPSE_INLINE V through_float(V state) const { return state; }
  SYNAPSE_INLINE Bias bias(float value, float, int32_t&) const { return value; }
  SYNAPSE_INLINE V biased(V state, Bias bias) const { return state + bias; }
  SYNAPSE_INLINE V current(V state) const { return state; }
  SYNAPSE_INLINE V voltage(V state) const { return state; }
  SYNAPSE_INLINE void watch(V, int32_t&) const {}
  SYNAPSE_INLINE V start(Carried state, int32_t&) const { return state; }
  SYNAPSE_INLINE V constant(Attribute value) const { return value; }
  SYNAPSE_INLINE F fraction(float value, bool kept, bool&) const {
    return kept ? 1.0f - value : value;
  }
};

// int64, wrapping as torch's does.
template <bool loihi>
struct Wide {
  using V = Wrapping;
  using F = Wrapping;
  using Bias = V;
  using Carried = int64_t;
  using Attribute = int64_t;
  static constexpr bool kWatches = false;
  float scale = 1;

  SYNAPSE_INLINE V take(float x, int32_t&) const { return to_int64(scale * x); }
  SYNAPSE_INLINE float give(V state) const { return static_cast<float>(state) / scale; }
  SYNAPSE_INLINE V scaled(V state, F fraction) const {
    return static_cast<int64_t>(state * fraction) / kOne;
  }
  SYNAPSE_INLINE V through_float(V state) const {
    return loihi ? state : V(to_int64(static_cast<float>(state)));
  }
  SYNAPSE_INLINE Bias bias(float value, float, int32_t& seen) const { return take(value, seen); }
  // Through float32, with the bias added there: without one nothing else.
  SYNAPSE_INLINE V biased(V state, Bias bias) const {
    return loihi ? state + bias : V(to_int64(static_cast<float>(state) + static_cast<float>(bias)));
  }
  SYNAPSE_INLINE V current(V state) const { return loihi ? wrap(state) : state; }
  SYNAPSE_INLINE V voltage(V state) const { return loihi ? clip(state) : state; }
  SYNAPSE_INLINE void watch(V, int32_t&) const {}
  SYNAPSE_INLINE V start(Carried state, int32_t&) const { return state; }
  SYNAPSE_INLINE V constant(Attribute value) const { return value; }
  SYNAPSE_INLINE F fraction(float value, bool kept, bool&) const {
    return kept ? kOne - to_int64(value) : to_int64(value);
  }
};

// int32, right while `seen` stays below the limit: the bits of all magnitudes that came by.
template <bool loihi>
struct Narrow {
  using V = int32_t;
  using F = double;
  using Bias = V;
  using Carried = int64_t;
  using Attribute = int64_t;
  static constexpr bool kWatches = true;
  float scale = 1;

  SYNAPSE_INLINE V take(float x, int32_t& seen) const {
    const float scaled_x = scale * x;
    const bool fits = std::fabs(scaled_x) < static_cast<float>(kNarrowLimit);  // a NaN does not
    seen |= fits ? 0 : kNarrowLimit;
    return static_cast<V>(fits ? scaled_x : 0.0f);
  }
  SYNAPSE_INLINE float give(V state) const { return static_cast<float>(state) / scale; }
  SYNAPSE_INLINE V scaled(V state, F fraction) const { return static_cast<V>(state * fraction); }
  SYNAPSE_INLINE V through_float(V state) const { return state; }
  SYNAPSE_INLINE Bias bias(float value, float, int32_t& seen) const { return take(value, seen); }
  SYNAPSE_INLINE V biased(V state, Bias bias) const { return state + bias; }
  SYNAPSE_INLINE V current(V state) const { return loihi ? wrap(state) : state; }
  SYNAPSE_INLINE V voltage(V state) const { return loihi ? clip(state) : state; }
  SYNAPSE_INLINE void watch(V state, int32_t& seen) const { seen |= state ^ (state >> 31); }
  SYNAPSE_INLINE V start(Carried state, int32_t& seen) const {
    const bool fits = state > -kNarrowLimit && state < kNarrowLimit;
    seen |= fits ? 0 : kNarrowLimit;
    return static_cast<V>(fits ? state : 0);
  }
  // a limit that is out of reach stays out of reach
  SYNAPSE_INLINE V constant(Attribute value) const {
    const int64_t most = int64_t{1} << 30;
    return static_cast<V>(value > most ? most : value < -most ? -most : value);
  }
  SYNAPSE_INLINE F fraction(float value, bool kept, bool& fits) const {
    const int64_t whole = to_int64(value);
    const int64_t n = kept ? kOne - whole : whole;
    fits = fits && whole >= -2 * kOne && whole <= 2 * kOne && n >= -kOne && n <= kOne;
    return static_cast<F>(n) / kOne;
  }
};

// A norm's minus mean, in the unit of the states, and its gain.
struct Norm {
  float bias, gain;
};

// Wide or Narrow with a norm in float32 within the step.
template <class A>
struct Normed : A {
  using V = typename A::V;
  using Bias = Norm;

  // A sum of currents and bias is below 2**25 in Narrow; a gain beyond 32 could lead beyond int32.
  SYNAPSE_INLINE Bias bias(float value, float gain, int32_t& seen) const {
    const float scaled = A::scale * value;
    const bool fits = std::fabs(scaled) < static_cast<float>(kNarrowLimit) &&
                      std::fabs(gain) <= 32.0f;  // a NaN does not
    seen |= fits ? 0 : kNarrowLimit;
    return {scaled, gain};
  }
  SYNAPSE_INLINE V biased(V state, Bias norm) const {
    const float normed = (static_cast<float>(state) + norm.bias) * norm.gain;
    if constexpr (A::kWatches)
      return static_cast<V>(normed);
    else
      return to_int64(normed);
  }
};

}  // namespace synapse
