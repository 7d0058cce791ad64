// exp, log, tanh and the logistic function of floats, computed in doubles and rounded once.
//
// ONNX Runtime approximates them in floats, to a few units in the last place. Here the error of the
// double is below 1e-11 of the value, so that the result is the float next to the true value but
// where that lies halfway between two floats, whatever the processor. Plain arithmetic without
// branches, which the compiler vectorises.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>

#include "base/compiler.h"

namespace synapse {

SYNAPSE_INLINE int64_t bits_of(double value) {
  int64_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  return bits;
}

SYNAPSE_INLINE double of_bits(int64_t bits) {
  double value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

// e^x: 2^n e^r with |r| <= log(2) / 2, and e^r by its series up to r^9.
SYNAPSE_INLINE double smooth_exp(double x) {
  constexpr double kLog2 = 0.6931471805599453, kPerLog2 = 1.4426950408889634;
  constexpr double kShift = 6755399441055744.0;  // 1.5 * 2^52: a sum with it is a whole number
  x = x < -700 ? -700 : x;                       // beyond any float, and within the exponents
  x = x > 700 ? 700 : x;                         // of doubles; NaN stays
  const double shifted = x * kPerLog2 + kShift;
  const double r = x - (shifted - kShift) * kLog2;
  double sum = 1.0 / 362880;
  sum = sum * r + 1.0 / 40320;
  sum = sum * r + 1.0 / 5040;
  sum = sum * r + 1.0 / 720;
  sum = sum * r + 1.0 / 120;
  sum = sum * r + 1.0 / 24;
  sum = sum * r + 1.0 / 6;
  sum = sum * r + 0.5;
  sum = sum * r + 1.0;
  sum = sum * r + 1.0;
  const auto power = (static_cast<uint64_t>(bits_of(shifted)) + 1023) << 52;
  return sum * of_bits(static_cast<int64_t>(power));
}

// log(x) of a double that is no subnormal: log(2) n + log(m) with m from 0.7 to 1.4, and
// log(m) = 2 atanh(s), s = (m - 1) / (m + 1), by its series up to s^13.
SYNAPSE_INLINE double smooth_log(double x) {
  constexpr double kLog2 = 0.6931471805599453, kInfinity = std::numeric_limits<double>::infinity();
  constexpr int64_t kHalf = 0x3fe6a09e667f3bcd;  // the bits of sqrt(1 / 2)
  constexpr double kShift = 6755399441055744.0;
  const uint64_t above = static_cast<uint64_t>(bits_of(x)) - kHalf;
  // the exponent as a double: its bits behind those of 1.5 * 2^52, which take a sign, too
  const int64_t exponent = static_cast<int64_t>(above) >> 52;
  const double n = of_bits(bits_of(kShift) + exponent) - kShift;
  const double m = of_bits(static_cast<int64_t>((above & 0xfffffffffffff) + kHalf));
  const double s = (m - 1) / (m + 1), q = s * s;
  double sum = 2.0 / 13;
  sum = sum * q + 2.0 / 11;
  sum = sum * q + 2.0 / 9;
  sum = sum * q + 2.0 / 7;
  sum = sum * q + 2.0 / 5;
  sum = sum * q + 2.0 / 3;
  sum = sum * q + 2.0;
  double y = sum * s + n * kLog2;
  y = x == 0 ? -kInfinity : y;
  y = x < 0 ? std::numeric_limits<double>::quiet_NaN() : y;
  y = x < kInfinity ? y : x;  // infinity and NaN
  return y;
}

// tanh(x): near 0, where a difference of exponentials would lose digits, by its series.
SYNAPSE_INLINE double smooth_tanh(double x) {
  const double size = x < 0 ? -x : x;
  const double falling = smooth_exp(-2 * size);
  const double far = (1 - falling) / (1 + falling);
  const double near = size - size * size * size * (1.0 / 3);
  const double y = size < 1e-3 ? near : far;
  return std::copysign(y, x);
}

SYNAPSE_INLINE double smooth_logistic(double x) { return 1 / (1 + smooth_exp(-x)); }

}  // namespace synapse
