// Float weights in tiles of outputs, and the sums of rows of events for one tile.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>

#include "base/call.h"
#include "base/compiler.h"
#include "base/memory.h"
#include "dense/float_product.h"
#include "dense/float_rows.h"
#include "dense/rows.h"

namespace synapse {

// A matrix of float weights in tiles of 64 outputs. The weights of a tile lie together, one row for
// every input; the last tile is narrower, in whole vectors of 16.
struct FloatWeights {
  int64_t inputs = 0, outputs = 0;
  bool finite = true;  // no weight is infinite or NaN: such a weight times 0 is no 0

  // The sizes of a weight (O, C, ...), or (C, O) with `inputs_first`; `lay_out` fills the tiles.
  FloatWeights(const Input& weight, bool inputs_first, bool lay_out) {
    if (weight.type != kFloat) throw CallError("weights must be float32");
    if (weight.shape.size() < 2 || (inputs_first && weight.shape.size() != 2))
      throw CallError("a weight needs the axes ", inputs_first ? "(C, O)" : "(O, C, ...)", ", got ",
                      weight.shape);
    outputs = weight.shape[inputs_first ? 1 : 0];
    inputs = inputs_first ? weight.shape[0] : product(weight.shape, 1);
    if (!lay_out) return;
    const float* from = weight.as<float>();
    rows_ = AlignedVector<float>(inputs * ((outputs + 15) / 16 * 16));
    const int64_t by_output = inputs_first ? 1 : inputs, by_input = inputs_first ? outputs : 1;
    for (int64_t first = 0; first < outputs; first += kFloatTile) {
      float* to = rows_.data() + first * inputs;
      const int64_t here = std::min<int64_t>(kFloatTile, outputs - first), row = lanes(first);
      for (int64_t c = 0; c < inputs; c++)
        for (int64_t o = 0; o < here; o++) {
          const float value = from[(first + o) * by_output + c * by_input];
          finite = finite && std::isfinite(value);
          to[c * row + o] = value;
        }
    }
  }

  const float* tile(int64_t first) const { return rows_.data() + first * inputs; }

  // The length of a row of the tile that begins with an output.
  int lanes(int64_t first) const {
    return static_cast<int>((std::min<int64_t>(kFloatTile, outputs - first) + 15) / 16 * 16);
  }

 private:
  AlignedVector<float> rows_;
};

// Adds a product, rounded once, where this processor can.
SYNAPSE_INLINE float add_product(float a, float b, float sum) {
#if defined(__FP_FAST_FMAF)
  return __builtin_fmaf(a, b, sum);
#else
  return sum + a * b;
#endif
}

// The sums of a tile for some rows: for each row kFloatTile numbers, that begin with a cache line.
//
// The order of a sum is fixed: from 0 on, input after input, and the bias last. A fused
// multiply-add rounds each step once; processors without one round the product, too. An input that
// is 0 changes no sum of finite weights, so the events of a row and all of its inputs have the same
// sums, to the last bit.
//
// Weights of kInputsAtOnce inputs are added for the events of all rows before the next ones, so
// that they stay in the first caches; the sums so far wait in `sums`.
struct FloatTileSums {
  static constexpr int64_t kInputsAtOnce = 256;
  static constexpr int64_t kMostRows = TimeLastSpikes::kSteps;

  const FloatRows& rows;  // at most kMostRows
  const float* weights;   // of the tile
  int64_t inputs;
  const float* bias;  // of a whole tile; null without
  float* sums;

  // Whether rows of all inputs have sums here.
  static bool takes_all() {
#if defined(SYNAPSE_X86)
    static const int level = instruction_level();
    return level >= 3;
#else
    return false;
#endif
  }

  void run(int lanes) const {
#if defined(SYNAPSE_X86)
    static const int level = instruction_level();
    if (rows.has_all()) return FloatTileProduct{rows, weights, inputs, bias, sums}.run(lanes);
    if (level >= 4) {
      switch (lanes / 16) {
        case 1:
          return run_512<1>();
        case 2:
          return run_512<2>();
        case 3:
          return run_512<3>();
        default:
          return run_512<4>();
      }
    }
    if (level >= 3) {
      switch (lanes / 16) {
        case 1:
          return run_256<2>();
        case 2:
          return run_256<4>();
        case 3:
          return run_256<6>();
        default:
          return run_256<8>();
      }
    }
#endif
    run_any(weights, inputs, rows, bias, sums, lanes);
  }

 private:
  // The events of a row that are not yet added.
  struct Rest {
    const int32_t *index, *end;
    const float* value;

    explicit Rest(const FloatRow& row)
        : index(row.index), end(row.index + row.count), value(row.value) {}
    Rest() = default;
  };

  SYNAPSE_CLONES static void run_any(const float* weights, int64_t inputs, const FloatRows& rows,
                                     const float* bias, float* sums, int lanes) {
    (void)inputs;
    for (int64_t r = 0; r < rows.size(); r++, sums += kFloatTile) {
      const FloatRow row = rows.row(r);
      alignas(64) float sum[kFloatTile] = {};
      for (int64_t e = 0; e < row.count; e++) {
        const float* from = weights + row.index[e] * static_cast<int64_t>(lanes);
        const float value = row.value == nullptr ? 1.0f : row.value[e];
        SYNAPSE_INDEPENDENT
        for (int o = 0; o < lanes; o++) sum[o] = add_product(value, from[o], sum[o]);
      }
      for (int o = 0; o < lanes; o++) sums[o] = bias == nullptr ? sum[o] : sum[o] + bias[o];
    }
  }

#if defined(SYNAPSE_X86)
  template <int vectors>
  SYNAPSE_AVX512 void run_512() const {
    Rest rest[kMostRows];
    const int64_t count = rows.size();
    for (int64_t r = 0; r < count; r++) rest[r] = Rest(rows.row(r));
    int64_t from = 0;
    do {  // also runs for no inputs
      const int64_t to = from + kInputsAtOnce;
      const bool last = to >= inputs;
      float* out = sums;
      for (int64_t r = 0; r < count; r++, out += kFloatTile) {
        __m512 sum[vectors];
        for (int v = 0; v < vectors; v++)
          sum[v] = from == 0 ? _mm512_setzero_ps() : _mm512_load_ps(out + 16 * v);
        const int32_t *at = rest[r].index, *end = rest[r].end;
        if (rest[r].value == nullptr) {
          for (; at < end && *at < to; at++) {
            const float* row = weights + *at * int64_t{16 * vectors};
            for (int v = 0; v < vectors; v++)
              sum[v] = _mm512_add_ps(sum[v], _mm512_load_ps(row + 16 * v));
          }
        } else {
          const float* value = rest[r].value;
          for (; at < end && *at < to; at++, value++) {
            const float* row = weights + *at * int64_t{16 * vectors};
            const __m512 by = _mm512_set1_ps(*value);
            for (int v = 0; v < vectors; v++)
              sum[v] = _mm512_fmadd_ps(by, _mm512_load_ps(row + 16 * v), sum[v]);
          }
          rest[r].value = value;
        }
        rest[r].index = at;
        if (last && bias != nullptr)
          for (int v = 0; v < vectors; v++)
            sum[v] = _mm512_add_ps(sum[v], _mm512_load_ps(bias + 16 * v));
        for (int v = 0; v < vectors; v++) _mm512_store_ps(out + 16 * v, sum[v]);
      }
      from = to;
    } while (from < inputs);
  }

  // The same in registers of 256 bits.
  template <int vectors>
  SYNAPSE_FMA void run_256() const {
    Rest rest[kMostRows];
    const int64_t count = rows.size();
    for (int64_t r = 0; r < count; r++) rest[r] = Rest(rows.row(r));
    int64_t from = 0;
    do {
      const int64_t to = from + kInputsAtOnce;
      const bool last = to >= inputs;
      float* out = sums;
      for (int64_t r = 0; r < count; r++, out += kFloatTile) {
        __m256 sum[vectors];
        for (int v = 0; v < vectors; v++)
          sum[v] = from == 0 ? _mm256_setzero_ps() : _mm256_load_ps(out + 8 * v);
        const int32_t *at = rest[r].index, *end = rest[r].end;
        if (rest[r].value == nullptr) {
          for (; at < end && *at < to; at++) {
            const float* row = weights + *at * int64_t{8 * vectors};
            for (int v = 0; v < vectors; v++)
              sum[v] = _mm256_add_ps(sum[v], _mm256_load_ps(row + 8 * v));
          }
        } else {
          const float* value = rest[r].value;
          for (; at < end && *at < to; at++, value++) {
            const float* row = weights + *at * int64_t{8 * vectors};
            const __m256 by = _mm256_set1_ps(*value);
            for (int v = 0; v < vectors; v++)
              sum[v] = _mm256_fmadd_ps(by, _mm256_load_ps(row + 8 * v), sum[v]);
          }
          rest[r].value = value;
        }
        rest[r].index = at;
        if (last && bias != nullptr)
          for (int v = 0; v < vectors; v++)
            sum[v] = _mm256_add_ps(sum[v], _mm256_load_ps(bias + 8 * v));
        for (int v = 0; v < vectors; v++) _mm256_store_ps(out + 8 * v, sum[v]);
      }
      from = to;
    } while (from < inputs);
  }
#endif
};

}  // namespace synapse
