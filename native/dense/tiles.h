// Integer weights in tiles of outputs, and the sums of a row's events for one tile.
#pragma once

#include <algorithm>
#include <cstdint>
#include <type_traits>

#include "base/call.h"
#include "base/compiler.h"
#include "base/memory.h"
#include "dense/rows.h"

namespace synapse {

constexpr int kTileOutputs = 128;  // as many sums as stay in registers

// A matrix of integer weights in tiles of 128 outputs. The weights of a tile lie together, one row
// for every input; rows of all outputs would leave most sets of a cache unused.
//
// 8-bit weights are interleaved: within 64 outputs, the low byte of 16-bit word i is output i and
// the high byte is output 32 + i. An offset makes every byte positive. Example of one word with the
// bytes of two events, (low 3, high 5) and (low 250, high 7):
//
//   sum of the words       = 3 + 250 + 256 * (5 + 7) = 253 + 256 * 12
//   sum of the high bytes  = 5 + 7 = 12
//   sum of the low bytes   = sum of the words - 256 * sum of the high bytes = 253
//
// So one shift and two additions of words sum two outputs, and the low sum is exact as long as it
// is below 2**16: word arithmetic wraps modulo 2**16, and so does the subtraction. The sum of the
// high bytes has the same bound. Where the weights are small enough, 2, 4 or 8 events are added as
// bytes first: their sum stays below 2**8, so that no byte wraps.
template <class W>
class TiledMatrix {
 public:
  static constexpr bool kInterleaved = sizeof(W) == 1;
  using Stored = std::conditional_t<kInterleaved, uint8_t, W>;

  int64_t inputs = 0, outputs = 0;
  int32_t offset = 0;   // added to every stored weight
  int byte_shift = 0;   // the stored bytes of 2**byte_shift events add up to less than 2**8
  int32_t largest = 0;  // magnitude of a stored weight

  TiledMatrix() = default;

  // Stores the weights (O, C) that weight(output, input) returns.
  template <class Weight>
  TiledMatrix(int64_t in, int64_t out, const Weight& weight) : inputs(in), outputs(out) {
    int32_t least = 0, most = 0;
    for (int64_t o = 0; o < out; o++) {
      for (int64_t c = 0; c < in; c++) {
        least = std::min(least, weight(o, c));
        most = std::max(most, weight(o, c));
      }
    }
    largest = std::max(-least, most);
    if (kInterleaved) {
      for (offset = 128; byte_shift < 3 && -least <= offset / 2 && most < offset / 2; byte_shift++)
        offset /= 2;
      largest = 2 * offset - 1;
    }
    rows_ = AlignedVector<Stored>(in * ((out + kTileOutputs - 1) / kTileOutputs * kTileOutputs),
                                  static_cast<Stored>(offset));
    for (int64_t o = 0; o < out; o++)
      for (int64_t c = 0; c < in; c++)
        rows_.data()[at(c, o)] = static_cast<Stored>(weight(o, c) + offset);
  }

  // The index of an output within a row of its tile.
  static constexpr int64_t slot(int64_t output) {
    if (!kInterleaved) return output;
    const int64_t within = output % 64;
    return output - within + (within < 32 ? 2 * within : 2 * (within - 32) + 1);
  }

  // The tile of an output, from that output on, which is the first of 64.
  const Stored* tile(int64_t first) const {
    return rows_.data() + (first - first % kTileOutputs) * inputs + first % kTileOutputs;
  }

  int32_t weight(int64_t input, int64_t output) const {
    return rows_.data()[at(input, output)] - offset;
  }

  // Whether sums over some events fit an int32, whatever the order of additions.
  bool fits(const EventRow& events) const {
    return static_cast<double>(events.total) * largest < 2147483648.0;
  }

 private:
  int64_t at(int64_t input, int64_t output) const {
    const int64_t within = output % kTileOutputs;
    return (output - within) * inputs + input * kTileOutputs + slot(within);
  }

  AlignedVector<Stored> rows_;
};

// Where the sums of a tile go: out[o] = scale[o] * sum[o] + bias[o] for `count` outputs from
// `first` on.
struct TileOutput {
  int64_t first;
  int count;          // up to kTileOutputs; `first` is a multiple of 64, and all are in one tile
  WeightScale scale;  // from `first` on
  const float* bias;  // likewise; null without one
  float* out;

  SYNAPSE_INLINE void add_bias() const {
    if (bias == nullptr) return;
    for (int o = 0; o < count; o++) out[o] += bias[o];
  }
};

// The sums of any events in a type S that holds them.
template <class W, class S>
struct TileSums {
  SYNAPSE_CLONES static void run(const EventRow& events, const TiledMatrix<W>& matrix,
                                 const TileOutput& to) {
    using M = TiledMatrix<W>;
    alignas(64) S stored[kTileOutputs] = {};
    const int count = (to.count + 63) / 64 * 64;
    const S offset = matrix.offset;
    for (int64_t e = 0; e < events.count; e++) {
      const auto* row = matrix.tile(to.first) + events.index[e] * kTileOutputs;
      const S value = events.value == nullptr ? 1 : events.value[e];
      SYNAPSE_INDEPENDENT
      for (int o = 0; o < count; o++) stored[o] += value * (row[o] - offset);
    }
    for (int o = 0; o < to.count; o++)
      to.out[o] = static_cast<float>(stored[M::slot(o)]) * to.scale[o];
    to.add_bias();
  }
};

#if defined(SYNAPSE_X86)
// The sums of spikes, `vectors` times 64 outputs, with intrinsics so that the sums stay in
// registers from event to event. (GCC's generic vectors stay scalar in a cloned function: see
// base/compiler.h.)
template <int vectors, int byte_events>
SYNAPSE_AVX512 void spike_sums_512(const EventRow& events, const TiledMatrix<int8_t>& matrix,
                                   const TileOutput& to) {
  const int32_t* index = events.index;
  const uint8_t* rows = matrix.tile(to.first);
  // After so many events the 16-bit sums are widened to 32 bits. Until then the sum of the low
  // bytes is at most most * largest <= 65535; TiledMatrix shows why the low sum is exact.
  const int64_t most = 65535 / matrix.largest / byte_events * byte_events;
  // every event adds the offset of the stored weights once, so all of it is subtracted up front
  __m512i sums[4 * vectors];
  const __m512i offset = _mm512_set1_epi32(-matrix.offset * static_cast<int32_t>(events.count));
  for (__m512i& sum : sums) sum = offset;
  for (int64_t e = 0; e < events.count;) {
    const int64_t end = std::min(events.count, e + most);
    // sums of the whole words, sums of their high bytes, and the bytes of up to byte_events events
    __m512i both[vectors], high[vectors], bytes[vectors];
    for (int v = 0; v < vectors; v++) both[v] = high[v] = _mm512_setzero_si512();
    const auto add_bytes = [&]() SYNAPSE_AVX512 __attribute__((always_inline)) {
      for (int v = 0; v < vectors; v++) {
        both[v] = _mm512_add_epi16(both[v], bytes[v]);
        high[v] = _mm512_add_epi16(high[v], _mm512_srli_epi16(bytes[v], 8));
      }
    };
    for (; e + byte_events <= end; e += byte_events) {
      for (int k = 0; k < byte_events; k++) {
        const uint8_t* row = rows + index[e + k] * kTileOutputs;
        for (int v = 0; v < vectors; v++) {
          const __m512i here = _mm512_load_si512(row + 64 * v);
          bytes[v] = k == 0 ? here : _mm512_add_epi8(bytes[v], here);
        }
      }
      add_bytes();
    }
    for (; e < end; e++) {
      const uint8_t* row = rows + index[e] * kTileOutputs;
      for (int v = 0; v < vectors; v++) bytes[v] = _mm512_load_si512(row + 64 * v);
      add_bytes();
    }
    for (int v = 0; v < vectors; v++) {
      const __m512i low = _mm512_sub_epi16(both[v], _mm512_slli_epi16(high[v], 8));
      for (int half = 0; half < 2; half++) {
        const __m512i part = half ? high[v] : low;
        __m512i* sum = sums + 4 * v + 2 * half;
        const __m512i a = _mm512_cvtepu16_epi32(_mm512_castsi512_si256(part));
        const __m512i b = _mm512_cvtepu16_epi32(_mm512_extracti64x4_epi64(part, 1));
        sum[0] = _mm512_add_epi32(sum[0], a);
        sum[1] = _mm512_add_epi32(sum[1], b);
      }
    }
  }
  const __m512 shared = _mm512_set1_ps(to.scale.values[0]);
  for (int i = 0; i < 4 * vectors; i++) {
    const int left = std::min(to.count - 16 * i, 16);
    if (left <= 0) break;
    const __mmask16 here = static_cast<__mmask16>((1u << left) - 1);
    const __m512 scale =
        to.scale.shared ? shared : _mm512_maskz_loadu_ps(here, to.scale.values + 16 * i);
    __m512 y = _mm512_mul_ps(_mm512_cvtepi32_ps(sums[i]), scale);
    if (to.bias != nullptr) y = _mm512_add_ps(y, _mm512_maskz_loadu_ps(here, to.bias + 16 * i));
    _mm512_mask_storeu_ps(to.out + 16 * i, here, y);
  }
}

// The same in registers of 256 bits.
template <int vectors, int byte_events>
SYNAPSE_AVX2 void spike_sums_256(const EventRow& events, const TiledMatrix<int8_t>& matrix,
                                 const TileOutput& to) {
  const int32_t* index = events.index;
  const uint8_t* rows = matrix.tile(to.first);
  const int64_t most = 65535 / matrix.largest / byte_events * byte_events;
  alignas(32) int32_t sums[64 * vectors];
  std::fill_n(sums, 64 * vectors, -matrix.offset * static_cast<int32_t>(events.count));
  for (int64_t e = 0; e < events.count;) {
    const int64_t end = std::min(events.count, e + most);
    __m256i both[2 * vectors], high[2 * vectors], bytes[2 * vectors];
    for (int v = 0; v < 2 * vectors; v++) both[v] = high[v] = _mm256_setzero_si256();
    const auto add_bytes = [&]() SYNAPSE_AVX2 __attribute__((always_inline)) {
      for (int v = 0; v < 2 * vectors; v++) {
        both[v] = _mm256_add_epi16(both[v], bytes[v]);
        high[v] = _mm256_add_epi16(high[v], _mm256_srli_epi16(bytes[v], 8));
      }
    };
    for (; e + byte_events <= end; e += byte_events) {
      for (int k = 0; k < byte_events; k++) {
        const auto* row = reinterpret_cast<const __m256i*>(rows + index[e + k] * kTileOutputs);
        for (int v = 0; v < 2 * vectors; v++) {
          const __m256i here = _mm256_load_si256(row + v);
          bytes[v] = k == 0 ? here : _mm256_add_epi8(bytes[v], here);
        }
      }
      add_bytes();
    }
    for (; e < end; e++) {
      const auto* row = reinterpret_cast<const __m256i*>(rows + index[e] * kTileOutputs);
      for (int v = 0; v < 2 * vectors; v++) bytes[v] = _mm256_load_si256(row + v);
      add_bytes();
    }
    for (int v = 0; v < 2 * vectors; v++) {
      const __m256i low = _mm256_sub_epi16(both[v], _mm256_slli_epi16(high[v], 8));
      for (int half = 0; half < 2; half++) {
        // words 16 to 31 of 64 outputs are in the odd registers
        int32_t* out = sums + 64 * (v / 2) + 32 * half + 16 * (v % 2);
        alignas(32) uint16_t words[16];
        _mm256_store_si256(reinterpret_cast<__m256i*>(words), half ? high[v] : low);
        for (int o = 0; o < 16; o++) out[o] += words[o];
      }
    }
  }
  for (int o = 0; o < to.count; o++) to.out[o] = static_cast<float>(sums[o]) * to.scale[o];
  to.add_bias();
}

// By instructions (AVX2, AVX-512) and byte_shift.
template <int vectors>
constexpr decltype(&spike_sums_256<1, 1>) kSpikeSums[2][4] = {
    {spike_sums_256<vectors, 1>, spike_sums_256<vectors, 2>, spike_sums_256<vectors, 4>,
     spike_sums_256<vectors, 8>},
    {spike_sums_512<vectors, 1>, spike_sums_512<vectors, 2>, spike_sums_512<vectors, 4>,
     spike_sums_512<vectors, 8>}};
#endif

// Sums the weights of some events for a tile:
// out[o] = scale[o] * sum of value * weight[index, o] + bias[o].
// The sums are 64-bit where 32 bits could overflow.
template <class W>
void tile_sums(const EventRow& events, const TiledMatrix<W>& matrix, const TileOutput& to) {
  if (!matrix.fits(events)) return TileSums<W, int64_t>::run(events, matrix, to);
#if defined(SYNAPSE_X86)
  if constexpr (TiledMatrix<W>::kInterleaved) {
    static const int level = instruction_level();
    if (events.value == nullptr && level >= 3)
      return (to.count > 64 ? kSpikeSums<2> : kSpikeSums<1>)[level >= 4][matrix.byte_shift](
          events, matrix, to);
  }
#endif
  TileSums<W, int32_t>::run(events, matrix, to);
}

// The weights of a dense synapse, laid out for the sums: in 8 bits where the file has int4 or int8,
// else in 16 bits. Constant weights are laid out once, when the session is created.
struct DenseWeights {
  int64_t inputs = 0, outputs = 0;
  bool wide = false;
  TiledMatrix<int8_t> bytes;
  TiledMatrix<int16_t> shorts;

  explicit DenseWeights(const Input& weight) {
    if (weight.shape.size() < 2) throw CallError("a weight needs the axes (O, C, ...)");
    outputs = weight.shape[0];
    inputs = product(weight.shape, 1);
    wide = weight.type == ONNX_TENSOR_ELEMENT_DATA_TYPE_INT16;
    const auto at = [&](int64_t o, int64_t c) { return integer_weight(weight, o * inputs + c); };
    if (wide) {
      shorts = TiledMatrix<int16_t>(inputs, outputs, at);
    } else {
      bytes = TiledMatrix<int8_t>(inputs, outputs, at);
    }
  }

  int32_t at(int64_t c, int64_t o) const { return wide ? shorts.weight(c, o) : bytes.weight(c, o); }

  void sums(const EventRow& events, const TileOutput& to) const {
    wide ? tile_sums(events, shorts, to) : tile_sums(events, bytes, to);
  }
};

}  // namespace synapse
