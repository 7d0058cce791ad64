// Weighted sums of spikes: what synapses with integer weights have in common.
//
// Most inputs are silent, so a row of inputs is read once for its events, the inputs that are not
// zero, and only their weights are added. Sums of integers are exact in any order.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <memory>
#include <vector>

#include "common.h"

namespace synapse {

constexpr int kTile = 128;  // sums that are kept in registers
constexpr int32_t kLargestInput = 1 << 15;

// The inputs of a row that are not zero.
struct Events {
  std::vector<int32_t> index, value;  // values are not kept where all are 1
  int64_t count = 0;
  int64_t total = 0;      // sum of their magnitudes
  bool ones = true;       // all values are 1
  bool integers = true;   // all values are integers below kLargestInput

  static constexpr int64_t room = 16;  // places behind the last, which vectors are written to

  explicit Events(int64_t inputs)
      : index(static_cast<size_t>(inputs + room)), value(static_cast<size_t>(inputs + room)) {}

  void read(const float* x, int64_t inputs) {
    begin();
#if defined(SYNAPSE_X86)
    // spikes first, which are zeros and ones; what else there is, is read once more
    static const int level = instruction_level();
    if (level >= 3 && (level >= 4 ? spikes_512(x, inputs) : spikes_256(x, inputs))) {
      total = count;
      return;
    }
    begin();
#endif
    int64_t c = 0;
    for (; c + 8 <= inputs; c += 8) {  // eight silent inputs are skipped at once
      uint64_t bits[4];
      std::memcpy(bits, x + c, sizeof bits);
      if ((bits[0] | bits[1] | bits[2] | bits[3]) == 0) continue;
      for (int64_t i = c; i < c + 8; i++) one(x[i], i);
    }
    for (; c < inputs; c++) one(x[c], c);
  }

  void read(const uint8_t* x, int64_t inputs) {
    begin();
    int64_t c = 0;
    for (; c + 8 <= inputs; c += 8) {
      uint64_t bits;
      std::memcpy(&bits, x + c, sizeof bits);
      if (bits == 0) continue;
      for (int64_t i = c; i < c + 8; i++) one(x[i], i);
    }
    for (; c < inputs; c++) one(x[c], c);
  }

 private:
  void begin() {
    count = total = 0;
    ones = integers = true;
  }

#if defined(SYNAPSE_X86)
  // Read zeros and ones; false as soon as there is anything else.
  __attribute__((target("avx512f"))) bool spikes_512(const float* x, int64_t inputs) {
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
        // writes up to 15 places beyond, which `room` is for
        _mm512_storeu_si512(out + count, _mm512_maskz_compress_epi32(some, at));
        count += __builtin_popcount(some);
      }
      at = _mm512_add_epi32(at, sixteen);
    }
    return rest(x, c, inputs);
  }

  __attribute__((target("avx2"))) bool spikes_256(const float* x, int64_t inputs) {
    int32_t* out = index.data();
    int64_t c = 0;
    for (; c + 8 <= inputs; c += 8) {
      const __m256 values = _mm256_loadu_ps(x + c);
      int some = _mm256_movemask_ps(_mm256_cmp_ps(values, _mm256_setzero_ps(), _CMP_NEQ_UQ));
      if (some) {
        const __m256 are = _mm256_cmp_ps(values, _mm256_set1_ps(1.0f), _CMP_EQ_OQ);
        if (_mm256_movemask_ps(are) != some) return false;
        for (; some; some &= some - 1)
          out[count++] = static_cast<int32_t>(c + __builtin_ctz(static_cast<unsigned>(some)));
      }
    }
    return rest(x, c, inputs);
  }

  SYNAPSE_INLINE bool rest(const float* x, int64_t from, int64_t inputs) {
    for (int64_t c = from; c < inputs; c++) {
      if (x[c] == 0.0f) continue;
      if (x[c] != 1.0f) return false;
      index[static_cast<size_t>(count++)] = static_cast<int32_t>(c);
    }
    return true;
  }
#endif

  SYNAPSE_INLINE void one(float x, int64_t i) {
    const bool fits = std::fabs(x) < static_cast<float>(kLargestInput);  // a NaN does not
    const int32_t whole = static_cast<int32_t>(fits ? x : 0.0f);
    integers &= fits & (static_cast<float>(whole) == x);
    put(whole, i);
  }
  SYNAPSE_INLINE void one(uint8_t x, int64_t i) { put(x, i); }

  SYNAPSE_INLINE void put(int32_t x, int64_t i) {
    index[static_cast<size_t>(count)] = static_cast<int32_t>(i);
    value[static_cast<size_t>(count)] = x;
    ones &= (x == 0) | (x == 1);
    total += x < 0 ? -x : x;
    count += x != 0;
  }
};

// An integer weight as it is in the file, of 4, 8 or 16 bits.
inline int32_t integer_weight(const Input& weight, int64_t index) {
  switch (weight.type) {
    case ONNX_TENSOR_ELEMENT_DATA_TYPE_INT8:
      return weight.as<int8_t>()[index];
    case ONNX_TENSOR_ELEMENT_DATA_TYPE_INT16:
      return weight.as<int16_t>()[index];
    case ONNX_TENSOR_ELEMENT_DATA_TYPE_INT4: {
      const uint8_t pair = weight.as<uint8_t>()[index / 2];  // the first is the low half
      const int half = index % 2 ? pair >> 4 : pair & 15;
      return half < 8 ? half : half - 16;
    }
    default:
      throw CallError("weights must be int4, int8 or int16");
  }
}

// A matrix of integer weights, a row of outputs for every input; rows are padded to whole tiles.
template <class W>
struct Matrix {
  int64_t inputs = 0, outputs = 0, stride = 0;
  int32_t largest = 0;  // magnitude
  std::vector<W> rows;

  Matrix() = default;
  Matrix(int64_t in, int64_t out)
      : inputs(in), outputs(out), stride((out + kTile - 1) / kTile * kTile),
        rows(static_cast<size_t>(in * stride)) {}

  void set(int64_t input, int64_t output, int32_t weight) {
    rows[static_cast<size_t>(input * stride + output)] = static_cast<W>(weight);
    largest = std::max(largest, weight < 0 ? -weight : weight);
  }

  // Whether the sums over some events fit an int32.
  bool fits(const Events& events) const {
    return static_cast<double>(events.total) * largest < 2147483648.0;
  }
};

// sums[o] = sum over events of value * rows[index][o], for a tile of outputs. Written out for
// each instruction set, so that the sums stay in registers from one event to the next.
template <class W>
void tile_sums_anywhere(const Events& events, const W* rows, int64_t stride, int32_t* sums) {
  std::fill_n(sums, kTile, 0);
  for (int64_t e = 0; e < events.count; e++) {
    const W* row = rows + events.index[static_cast<size_t>(e)] * stride;
    const int32_t value = events.ones ? 1 : events.value[static_cast<size_t>(e)];
    for (int o = 0; o < kTile; o++) sums[o] += value * row[o];
  }
}

// The same in 64 bits, for what 32 do not hold.
template <class W>
void wide_tile_sums(const Events& events, const W* rows, int64_t stride, int64_t* sums) {
  std::fill_n(sums, kTile, int64_t{0});
  for (int64_t e = 0; e < events.count; e++) {
    const W* row = rows + events.index[static_cast<size_t>(e)] * stride;
    const int64_t value = events.ones ? 1 : events.value[static_cast<size_t>(e)];
    for (int o = 0; o < kTile; o++) sums[o] += value * row[o];
  }
}

#if defined(SYNAPSE_X86)
constexpr int64_t kShortEvents = 255;  // as many bytes of -128 add up to no less than -2**15

// Bytes of spikes are added in 16 bits, 255 at a time.
__attribute__((target("avx512f,avx512bw"))) inline void tile_sums_512(const Events& events,
                                                                      const int8_t* rows,
                                                                      int64_t stride,
                                                                      int32_t* sums) {
  const int32_t* index = events.index.data();
  const int32_t* value = events.value.data();
  __m512i total[8];
  for (auto& part : total) part = _mm512_setzero_si512();
  if (events.ones) {
    for (int64_t from = 0; from < events.count; from += kShortEvents) {
      const int64_t to = std::min(events.count, from + kShortEvents);
      __m512i some[4];
      for (auto& part : some) part = _mm512_setzero_si512();
      for (int64_t e = from; e < to; e++) {
        const int8_t* row = rows + index[e] * stride;
        for (int v = 0; v < 4; v++) {
          const __m256i bytes =
              _mm256_loadu_si256(reinterpret_cast<const __m256i*>(row + 32 * v));
          some[v] = _mm512_add_epi16(some[v], _mm512_cvtepi8_epi16(bytes));
        }
      }
      for (int v = 0; v < 4; v++) {
        const __m256i low = _mm512_castsi512_si256(some[v]);
        const __m256i high = _mm512_extracti64x4_epi64(some[v], 1);
        total[2 * v] = _mm512_add_epi32(total[2 * v], _mm512_cvtepi16_epi32(low));
        total[2 * v + 1] = _mm512_add_epi32(total[2 * v + 1], _mm512_cvtepi16_epi32(high));
      }
    }
  } else {
    for (int64_t e = 0; e < events.count; e++) {
      const int8_t* row = rows + index[e] * stride;
      const __m512i factor = _mm512_set1_epi32(value[e]);
      for (int v = 0; v < 8; v++) {
        const __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(row + 16 * v));
        const __m512i wide = _mm512_cvtepi8_epi32(bytes);
        total[v] = _mm512_add_epi32(total[v], _mm512_mullo_epi32(wide, factor));
      }
    }
  }
  for (int v = 0; v < 8; v++) _mm512_storeu_si512(sums + 16 * v, total[v]);
}

__attribute__((target("avx2"))) inline void tile_sums_256(const Events& events, const int8_t* rows,
                                                          int64_t stride, int32_t* sums) {
  const int32_t* index = events.index.data();
  const int32_t* value = events.value.data();
  std::fill_n(sums, kTile, 0);
  for (int half = 0; half < 2; half++) {  // eight registers of 16 bits or 32 hold half a tile
    const int first = half * kTile / 2;
    int32_t* out = sums + first;
    if (events.ones) {
      for (int64_t from = 0; from < events.count; from += kShortEvents) {
        const int64_t to = std::min(events.count, from + kShortEvents);
        __m256i some[4];
        for (auto& part : some) part = _mm256_setzero_si256();
        for (int64_t e = from; e < to; e++) {
          const int8_t* row = rows + index[e] * stride + first;
          for (int v = 0; v < 4; v++) {
            const __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(row + 16 * v));
            some[v] = _mm256_add_epi16(some[v], _mm256_cvtepi8_epi16(bytes));
          }
        }
        for (int v = 0; v < 4; v++) {
          alignas(32) int16_t shorts[16];
          _mm256_store_si256(reinterpret_cast<__m256i*>(shorts), some[v]);
          for (int o = 0; o < 16; o++) out[16 * v + o] += shorts[o];
        }
      }
    } else {
      __m256i total[8];
      for (auto& part : total) part = _mm256_setzero_si256();
      for (int64_t e = 0; e < events.count; e++) {
        const int8_t* row = rows + index[e] * stride + first;
        const __m256i factor = _mm256_set1_epi32(value[e]);
        for (int v = 0; v < 8; v++) {
          const __m128i bytes = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(row + 8 * v));
          const __m256i wide = _mm256_cvtepi8_epi32(bytes);
          total[v] = _mm256_add_epi32(total[v], _mm256_mullo_epi32(wide, factor));
        }
      }
      for (int v = 0; v < 8; v++)
        _mm256_storeu_si256(reinterpret_cast<__m256i*>(out + 8 * v), total[v]);
    }
  }
}
#endif

inline void tile_sums(const Events& events, const int8_t* rows, int64_t stride, int32_t* sums) {
#if defined(SYNAPSE_X86)
  static const int level = instruction_level();
  if (level >= 4) return tile_sums_512(events, rows, stride, sums);
  if (level >= 3) return tile_sums_256(events, rows, stride, sums);
#endif
  tile_sums_anywhere(events, rows, stride, sums);
}

struct TileSum16 {
  SYNAPSE_CLONES static void run(const Events& events, const int16_t* rows, int64_t stride,
                                 int32_t* sums) {
    std::fill_n(sums, kTile, 0);
    for (int64_t e = 0; e < events.count; e++) {
      const int16_t* row = rows + events.index[static_cast<size_t>(e)] * stride;
      const int32_t value = events.ones ? 1 : events.value[static_cast<size_t>(e)];
      SYNAPSE_INDEPENDENT
      for (int o = 0; o < kTile; o++) sums[o] += value * row[o];
    }
  }
};

inline void tile_sums(const Events& events, const int16_t* rows, int64_t stride, int32_t* sums) {
  TileSum16::run(events, rows, stride, sums);
}

}  // namespace synapse
