// Events: the inputs of a row that are not zero.
//
// Most inputs of a spiking layer are silent. So a synapse reads a row of inputs once for its events
// and adds the weights of those inputs only. Integer weights times integer inputs are summed as
// integers, which is exact in any order; inputs that are no integers go through ONNX Runtime's own
// operators for floats.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>
#include <vector>

#include "base/compiler.h"

namespace synapse {

#if defined(SYNAPSE_X86)
// The positions of the set bits of every byte, lowest first. Which inputs spike is data that no
// branch predictor learns: a branch on every spike took a third of the time of an MLP on an AMD
// EPYC. So AVX2 code looks the positions up. AVX-512 has an instruction for it (`compress`).
struct SetBits {
  uint8_t of[256][8] = {};

  constexpr SetBits() {
    for (int byte = 0; byte < 256; byte++)
      for (int bit = 0, i = 0; bit < 8; bit++)
        if (byte >> bit & 1) of[byte][i++] = static_cast<uint8_t>(bit);
  }
};
inline constexpr SetBits kSetBits;

// Writes (base + bit) * factor for each set bit of a byte and returns how many there are. Always
// writes eight numbers, so `to` needs room beyond its last one.
SYNAPSE_AVX2 inline int write_set_bits(unsigned byte, int32_t base, int32_t* to,
                                       int32_t factor = 1) {
  const __m128i bits = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(kSetBits.of[byte]));
  const __m256i at = _mm256_add_epi32(_mm256_set1_epi32(base), _mm256_cvtepu8_epi32(bits));
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(to),
                      _mm256_mullo_epi32(at, _mm256_set1_epi32(factor)));
  return __builtin_popcount(byte);
}
#endif

// Integer inputs are below 2**15 in magnitude, so that they fit the 16-bit products of a
// convolution.
constexpr int32_t kLargestInput = 1 << 15;

// Small counts, as sums of spikes in residual networks are, equal the sum of their levels:
// x = [x >= 1] + [x >= 2] + ... So each level is added as spikes are.
constexpr int64_t kMostLevels = 4;

// The largest of some inputs that are counts up to kMostLevels; 0 for others.
SYNAPSE_CLONES inline int64_t levels_of(const float* x, int64_t inputs) {
  int32_t others = 0, most = 0;
  SYNAPSE_INDEPENDENT
  for (int64_t i = 0; i < inputs; i++) {
    const bool fits = x[i] >= 0.0f && x[i] <= static_cast<float>(kMostLevels);  // false for a NaN
    const int32_t whole = static_cast<int32_t>(fits ? x[i] : 0.0f);
    others |= static_cast<float>(whole) != x[i];
    most = whole > most ? whole : most;
  }
  return others ? 0 : most;
}

// to[i] = 1 where x[i] is at least a level, else 0.
SYNAPSE_CLONES inline void at_least(const float* x, int64_t inputs, float level, float* to) {
  SYNAPSE_INDEPENDENT
  for (int64_t i = 0; i < inputs; i++) to[i] = x[i] >= level ? 1.0f : 0.0f;
}

struct Events {
  std::vector<int32_t> index, value;  // values are not written where all are 1
  int64_t count = 0;
  int64_t total = 0;     // sum of the values' magnitudes
  bool ones = true;      // all values are 1
  bool integers = true;  // all values are integers below kLargestInput

  static constexpr int64_t kRoom = 16;  // beyond the last event, for stores of whole vectors

  explicit Events(int64_t inputs) : index(inputs + kRoom), value(inputs + kRoom) {}

  void read(const float* x, int64_t inputs) {
    clear();
#if defined(SYNAPSE_X86)
    // Nearly all rows hold spikes, zeros and ones. A row with anything else is read a second time.
    static const int level = instruction_level();
    if (level >= 3 && (level >= 4 ? spikes_512(x, inputs) : spikes_256(x, inputs))) {
      total = count;
      return;
    }
    clear();
#endif
    scan(x, inputs);
  }

  void read(const uint8_t* x, int64_t inputs) {
    clear();
    scan(x, inputs);
  }

 private:
  void clear() {
    count = total = 0;
    ones = integers = true;
  }

  template <class X>
  void scan(const X* x, int64_t inputs) {
    int64_t c = 0;
    for (; c + 8 <= inputs; c += 8) {  // skips eight silent inputs at once
      uint64_t bits[sizeof(X)], any = 0;
      std::memcpy(bits, x + c, sizeof bits);
      for (const uint64_t part : bits) any |= part;
      if (any == 0) continue;
      for (int64_t i = c; i < c + 8; i++) add(x[i], i);
    }
    for (; c < inputs; c++) add(x[c], c);
  }

#if defined(SYNAPSE_X86)
  // Reads zeros and ones; false as soon as there is another value.
  SYNAPSE_AVX512 bool spikes_512(const float* x, int64_t inputs) {
    int32_t* out = index.data();
    const __m512 one = _mm512_set1_ps(1.0f);
    __m512i at = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    const __m512i sixteen = _mm512_set1_epi32(16);
    int64_t c = 0;
    for (; c + 16 <= inputs; c += 16) {
      const __m512 values = _mm512_loadu_ps(x + c);
      const __mmask16 some = _mm512_cmp_ps_mask(values, _mm512_setzero_ps(), _CMP_NEQ_UQ);
      if (some) {
        if (_mm512_cmp_ps_mask(values, one, _CMP_EQ_OQ) != some) return false;
        // writes up to 15 numbers beyond the last event, for which there is kRoom
        _mm512_storeu_si512(out + count, _mm512_maskz_compress_epi32(some, at));
        count += __builtin_popcount(some);
      }
      at = _mm512_add_epi32(at, sixteen);
    }
    return spikes(x, c, inputs);
  }

  SYNAPSE_AVX2 bool spikes_256(const float* x, int64_t inputs) {
    const __m256 zero = _mm256_setzero_ps(), one = _mm256_set1_ps(1.0f);
    int32_t* out = index.data();
    int64_t c = 0;
    for (; c + 8 <= inputs; c += 8) {
      const __m256 values = _mm256_loadu_ps(x + c);
      const int some = _mm256_movemask_ps(_mm256_cmp_ps(values, zero, _CMP_NEQ_UQ));
      if (_mm256_movemask_ps(_mm256_cmp_ps(values, one, _CMP_EQ_OQ)) != some) return false;
      count += write_set_bits(static_cast<unsigned>(some), static_cast<int32_t>(c), out + count);
    }
    return spikes(x, c, inputs);
  }

  SYNAPSE_INLINE bool spikes(const float* x, int64_t from, int64_t inputs) {
    for (int64_t c = from; c < inputs; c++) {
      if (x[c] == 0.0f) continue;
      if (x[c] != 1.0f) return false;
      index[count++] = static_cast<int32_t>(c);
    }
    return true;
  }
#endif

  SYNAPSE_INLINE void add(float x, int64_t i) {
    const bool fits = std::fabs(x) < static_cast<float>(kLargestInput);  // false for a NaN
    const int32_t whole = static_cast<int32_t>(fits ? x : 0.0f);
    integers &= fits & (static_cast<float>(whole) == x);
    put(whole, i);
  }
  SYNAPSE_INLINE void add(uint8_t x, int64_t i) { put(x, i); }

  // Writes the event and advances only where x is not zero, without a branch.
  SYNAPSE_INLINE void put(int32_t x, int64_t i) {
    index[count] = static_cast<int32_t>(i);
    value[count] = x;
    ones &= (x == 0) | (x == 1);
    total += x < 0 ? -x : x;
    count += x != 0;
  }
};

}  // namespace synapse
