// The arithmetics in which the step of a neuron is computed. An equation is written once, as a
// template over one of them.
//
// A state of the fixed-point regimes is an integer in units of 1 / scale, and a fraction is an
// integer in 4096ths. state * fraction / 4096 is truncated towards zero. `Wide` computes this in 64
// bits as torch does, and wraps where torch wraps. `Narrow` gives the same integers in 32 bits
// while every state stays below 2**23, which it checks: the product of a state and a 12-bit
// fraction is exact in a double, and a state below 2**24 is exact in a float.
//
// `Narrow` checks without a branch: the magnitudes of all states are combined by a bitwise or,
// whose result stays below 2**23 if and only if every one of them does. A block of neurons where it
// does not is computed once more by `Wide`.
#pragma once

#include <cmath>
#include <cstdint>

#include "base/compiler.h"

namespace synapse {

// `biased` and `normed` are `slayer` with a norm within the step: `biased` one that adds integers,
// and `normed` any other.
enum class Regime { slayer, biased, normed, floating, loihi };

constexpr int64_t kOne = 4096;             // the fraction 1
constexpr int32_t kNarrowLimit = 1 << 23;  // magnitudes of states in Narrow are smaller
constexpr int64_t kStateLimit = 1 << 23;   // one more than the largest 24-bit state of Loihi

// Converts as x86 does, and torch with it: a float outside of int64, or NaN, becomes INT64_MIN.
SYNAPSE_INLINE int64_t to_int64(float value) {
  const bool fits = value >= -9223372036854775808.0f && value < 9223372036854775808.0f;
  return fits ? static_cast<int64_t>(value) : INT64_MIN;
}

// An int64 that wraps on overflow, as torch's does. It is a type because nvcc has no -fwrapv.
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

// Wraps a current into 24 bits (Loihi).
template <class V>
SYNAPSE_INLINE V wrap(V value) {
  const V span = static_cast<V>(2 * kStateLimit), limit = static_cast<V>(kStateLimit);
  const V over = value > limit ? value - span : value;
  return over <= -limit ? over + span : over;
}

// Clips a voltage to 24 bits (Loihi).
template <class V>
SYNAPSE_INLINE V clip(V value) {
  const V limit = static_cast<V>(kStateLimit - 1);
  const V low = value < -limit ? -limit : value;
  return low > limit ? limit : low;
}

// float32; each operation is rounded, as in the graph, since the compiler must not contract any.
struct Floating {
  using V = float;          // states, currents, thresholds
  using F = float;          // fractions
  using Bias = V;           // the norm of a slayer neuron, reduced to a bias
  using Carried = float;    // states between calls
  using Attribute = float;  // constants
  static constexpr bool kChecksRange = false;
  float scale = 1;

  SYNAPSE_INLINE V to_state(float x, int32_t&) const { return x; }
  SYNAPSE_INLINE float to_float(V state) const { return state; }
  SYNAPSE_INLINE V scaled(V state, F fraction) const { return state * fraction; }
  SYNAPSE_INLINE V through_float(V state) const { return state; }
  SYNAPSE_INLINE Bias bias(float value, float, int32_t&) const { return value; }
  SYNAPSE_INLINE V biased(V state, Bias bias) const { return state + bias; }
  SYNAPSE_INLINE V current(V state) const { return state; }
  SYNAPSE_INLINE V voltage(V state) const { return state; }
  SYNAPSE_INLINE void check_range(V, int32_t&) const {}
  SYNAPSE_INLINE V start(Carried state, int32_t&) const { return state; }
  SYNAPSE_INLINE V constant(Attribute value) const { return value; }
  SYNAPSE_INLINE F fraction(float value, bool decay, bool&) const {
    return decay ? 1.0f - value : value;
  }
};

// int64, which wraps as torch's does.
template <bool loihi>
struct Wide {
  using V = Wrapping;
  using F = Wrapping;
  using Bias = V;
  using Carried = int64_t;
  using Attribute = int64_t;
  static constexpr bool kChecksRange = false;
  float scale = 1;

  SYNAPSE_INLINE V to_state(float x, int32_t&) const { return to_int64(scale * x); }
  SYNAPSE_INLINE float to_float(V state) const { return static_cast<float>(state) / scale; }
  SYNAPSE_INLINE V scaled(V state, F fraction) const {
    return static_cast<int64_t>(state * fraction) / kOne;
  }
  SYNAPSE_INLINE V through_float(V state) const {
    return loihi ? state : V(to_int64(static_cast<float>(state)));
  }
  SYNAPSE_INLINE Bias bias(float value, float, int32_t& magnitudes) const {
    return to_state(value, magnitudes);
  }
  // torch adds the bias in float32, so the state is rounded to float32 even where the bias is 0.
  SYNAPSE_INLINE V biased(V state, Bias bias) const {
    return loihi ? state + bias : V(to_int64(static_cast<float>(state) + static_cast<float>(bias)));
  }
  SYNAPSE_INLINE V current(V state) const { return loihi ? wrap(state) : state; }
  SYNAPSE_INLINE V voltage(V state) const { return loihi ? clip(state) : state; }
  SYNAPSE_INLINE void check_range(V, int32_t&) const {}
  SYNAPSE_INLINE V start(Carried state, int32_t&) const { return state; }
  SYNAPSE_INLINE V constant(Attribute value) const { return value; }
  SYNAPSE_INLINE F fraction(float value, bool decay, bool&) const {
    return decay ? kOne - to_int64(value) : to_int64(value);
  }
};

// int32, correct while `magnitudes`, the bitwise or of all magnitudes, stays below kNarrowLimit.
template <bool loihi>
struct Narrow {
  using V = int32_t;
  using F = double;
  using Bias = V;
  using Carried = int64_t;
  using Attribute = int64_t;
  static constexpr bool kChecksRange = true;
  float scale = 1;

  SYNAPSE_INLINE V to_state(float x, int32_t& magnitudes) const {
    const float scaled_x = scale * x;
    const bool fits = std::fabs(scaled_x) < static_cast<float>(kNarrowLimit);  // false for a NaN
    magnitudes |= fits ? 0 : kNarrowLimit;
    return static_cast<V>(fits ? scaled_x : 0.0f);
  }
  SYNAPSE_INLINE float to_float(V state) const { return static_cast<float>(state) / scale; }
  SYNAPSE_INLINE V scaled(V state, F fraction) const { return static_cast<V>(state * fraction); }
  SYNAPSE_INLINE V through_float(V state) const { return state; }
  SYNAPSE_INLINE Bias bias(float value, float, int32_t& magnitudes) const {
    return to_state(value, magnitudes);
  }
  SYNAPSE_INLINE V biased(V state, Bias bias) const { return state + bias; }
  SYNAPSE_INLINE V current(V state) const { return loihi ? wrap(state) : state; }
  SYNAPSE_INLINE V voltage(V state) const { return loihi ? clip(state) : state; }
  SYNAPSE_INLINE void check_range(V state, int32_t& magnitudes) const {
    magnitudes |= state ^ (state >> 31);
  }
  SYNAPSE_INLINE V start(Carried state, int32_t& magnitudes) const {
    const bool fits = state > -kNarrowLimit && state < kNarrowLimit;
    magnitudes |= fits ? 0 : kNarrowLimit;
    return static_cast<V>(fits ? state : 0);
  }
  // A constant beyond 2**30 is only compared with states, which are below 2**23 here; a clamped one
  // compares the same. Equations that add constants check them (load_block).
  SYNAPSE_INLINE V constant(Attribute value) const {
    const int64_t most = int64_t{1} << 30;
    return static_cast<V>(value > most ? most : value < -most ? -most : value);
  }
  SYNAPSE_INLINE F fraction(float value, bool decay, bool& fits) const {
    const int64_t whole = to_int64(value);
    const int64_t n = decay ? kOne - whole : whole;
    fits = fits && whole >= -2 * kOne && whole <= 2 * kOne && n >= -kOne && n <= kOne;
    return static_cast<F>(n) / kOne;
  }
};

// A norm (x + bias) * gain; the bias is the negative mean, in units of the states.
struct Norm {
  float bias, gain;
};

// Wide or Narrow with a norm within the step, in float32.
template <class A>
struct Normed : A {
  using V = typename A::V;
  using Bias = Norm;

  // In Narrow the sum of a current and a bias is below 2**25, so a gain up to 32 cannot lead beyond
  // int32.
  SYNAPSE_INLINE Bias bias(float value, float gain, int32_t& magnitudes) const {
    const float scaled = A::scale * value;
    const bool fits = std::fabs(scaled) < static_cast<float>(kNarrowLimit) &&
                      std::fabs(gain) <= 32.0f;  // false for a NaN
    magnitudes |= fits ? 0 : kNarrowLimit;
    return {scaled, gain};
  }
  SYNAPSE_INLINE V biased(V state, Bias norm) const {
    const float normed = (static_cast<float>(state) + norm.bias) * norm.gain;
    if constexpr (A::kChecksRange)
      return static_cast<V>(normed);
    else
      return to_int64(normed);
  }
};

}  // namespace synapse
