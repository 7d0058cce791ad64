// Sums of the weights of a row's events for one tile of outputs: in 16, 32 or 64 bits, whichever is
// the shortest that holds them. Integer sums are exact in any order, so all of them agree.
#pragma once

#include <algorithm>
#include <cstdint>

#include "base/compiler.h"
#include "dense/event_rows.h"
#include "dense/tiled_matrix.h"

namespace synapse {

// Where the sums of a tile go: out[o] = scale[o] * sum[o] for `count` outputs from `first` on.
struct TileOutput {
  int64_t first;
  int count;  // up to kTileOutputs; `first` is a multiple of 64, and all are in one tile
  const float* scale;
  bool shared;  // one scale for all outputs
  float* out;
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
      to.out[o] = static_cast<float>(stored[M::slot(o)]) * to.scale[to.shared ? 0 : o];
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
  // bytes is at most most * largest <= 65535; tiled_matrix.h shows why the low sum is exact.
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
  const __m512 shared = _mm512_set1_ps(to.scale[0]);
  for (int i = 0; i < 4 * vectors; i++) {
    const int left = std::min(to.count - 16 * i, 16);
    if (left <= 0) break;
    const __mmask16 here = static_cast<__mmask16>((1u << left) - 1);
    const __m512 scale = to.shared ? shared : _mm512_maskz_loadu_ps(here, to.scale + 16 * i);
    _mm512_mask_storeu_ps(to.out + 16 * i, here, _mm512_mul_ps(_mm512_cvtepi32_ps(sums[i]), scale));
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
  for (int o = 0; o < to.count; o++)
    to.out[o] = static_cast<float>(sums[o]) * to.scale[to.shared ? 0 : o];
}

// The function for a number of outputs and of byte_events.
using SpikeSums = void (*)(const EventRow&, const TiledMatrix<int8_t>&, const TileOutput&);

template <int vectors>
SpikeSums spike_sums(int byte_events, bool wide) {
  switch (byte_events) {
    case 1:
      return wide ? spike_sums_512<vectors, 1> : spike_sums_256<vectors, 1>;
    case 2:
      return wide ? spike_sums_512<vectors, 2> : spike_sums_256<vectors, 2>;
    case 4:
      return wide ? spike_sums_512<vectors, 4> : spike_sums_256<vectors, 4>;
    default:
      return wide ? spike_sums_512<vectors, 8> : spike_sums_256<vectors, 8>;
  }
}
#endif

// Sums the weights of some events for a tile: out[o] = scale[o] * sum of value * weight[index, o].
// The sums are 64-bit where 32 bits could overflow.
template <class W>
void tile_sums(const EventRow& events, const TiledMatrix<W>& matrix, const TileOutput& to) {
  if (!matrix.fits(events)) return TileSums<W, int64_t>::run(events, matrix, to);
#if defined(SYNAPSE_X86)
  if constexpr (TiledMatrix<W>::kInterleaved) {
    static const int level = instruction_level();
    if (events.value == nullptr && level >= 3)
      return (to.count > 64 ? spike_sums<2> : spike_sums<1>)(matrix.byte_events, level >= 4)(
          events, matrix, to);
  }
#endif
  TileSums<W, int32_t>::run(events, matrix, to);
}

}  // namespace synapse
