// The sums of a tile of float weights where most inputs are events: a product of all inputs.
//
// The tile is the packed matrix of the product. Several rows are computed at once, so that a weight
// that was loaded is used for each of them; their sums stay in registers from the first input to
// the last, which gives them the order of events (float_tiles.h).
#pragma once

#include <algorithm>
#include <cstdint>

#include "base/compiler.h"
#include "dense/float_rows.h"

namespace synapse {

constexpr int kFloatTile = 64;  // outputs: as many sums as stay in registers

struct FloatTileProduct {
  const FloatRows& rows;  // with all inputs
  const float* weights;   // of the tile
  int64_t inputs;
  const float* bias;  // of a whole tile; null without
  float* sums;

#if defined(SYNAPSE_X86)
  void run(int lanes) const {
    static const int level = instruction_level();
    for (int64_t r = 0; r < rows.size(); r += kRows) {
      const int count = static_cast<int>(std::min<int64_t>(kRows, rows.size() - r));
      if (level < 4) {
        for (int o = 0; o < lanes; o += 16) part_256(count, r, o, lanes);
      } else if (lanes == 64) {
        part_512<4>(count, r);
      } else if (lanes == 48) {
        part_512<3>(count, r);
      } else if (lanes == 32) {
        part_512<2>(count, r);
      } else {
        part_512<1>(count, r);
      }
    }
  }

 private:
  static constexpr int kRows = 6;

  template <int vectors>
  void part_512(int count, int64_t row) const {
    switch (count) {
      case 1:
        return product_512<vectors, 1>(row);
      case 2:
        return product_512<vectors, 2>(row);
      case 3:
        return product_512<vectors, 3>(row);
      case 4:
        return product_512<vectors, 4>(row);
      case 5:
        return product_512<vectors, 5>(row);
      default:
        return product_512<vectors, 6>(row);
    }
  }

  void part_256(int count, int64_t row, int first, int lanes) const {
    switch (count) {
      case 1:
        return product_256<1>(row, first, lanes);
      case 2:
        return product_256<2>(row, first, lanes);
      case 3:
        return product_256<3>(row, first, lanes);
      case 4:
        return product_256<4>(row, first, lanes);
      case 5:
        return product_256<5>(row, first, lanes);
      default:
        return product_256<6>(row, first, lanes);
    }
  }

  // All vectors of 16 outputs of some rows.
  template <int vectors, int count>
  SYNAPSE_AVX512 void product_512(int64_t row) const {
    const float* x[count];
    for (int r = 0; r < count; r++) x[r] = rows.all(row + r);
    __m512 sum[count][vectors];
    for (int r = 0; r < count; r++)
      for (int v = 0; v < vectors; v++) sum[r][v] = _mm512_setzero_ps();
    const float* from = weights;
    for (int64_t c = 0; c < inputs; c++, from += 16 * vectors) {
      __m512 weight[vectors];
      for (int v = 0; v < vectors; v++) weight[v] = _mm512_load_ps(from + 16 * v);
      for (int r = 0; r < count; r++) {
        const __m512 by = _mm512_set1_ps(x[r][c]);
        for (int v = 0; v < vectors; v++) sum[r][v] = _mm512_fmadd_ps(by, weight[v], sum[r][v]);
      }
    }
    for (int r = 0; r < count; r++) {
      for (int v = 0; v < vectors; v++) {
        const __m512 total =
            bias == nullptr ? sum[r][v] : _mm512_add_ps(sum[r][v], _mm512_load_ps(bias + 16 * v));
        _mm512_store_ps(sums + (row + r) * kFloatTile + 16 * v, total);
      }
    }
  }

  // 16 outputs of some rows, from output `first` of the tile on.
  template <int count>
  SYNAPSE_FMA void product_256(int64_t row, int first, int lanes) const {
    const float* x[count];
    for (int r = 0; r < count; r++) x[r] = rows.all(row + r);
    __m256 sum[count][2];
    for (int r = 0; r < count; r++) sum[r][0] = sum[r][1] = _mm256_setzero_ps();
    const float* from = weights + first;
    for (int64_t c = 0; c < inputs; c++, from += lanes) {
      const __m256 low = _mm256_load_ps(from), high = _mm256_load_ps(from + 8);
      for (int r = 0; r < count; r++) {
        const __m256 by = _mm256_set1_ps(x[r][c]);
        sum[r][0] = _mm256_fmadd_ps(by, low, sum[r][0]);
        sum[r][1] = _mm256_fmadd_ps(by, high, sum[r][1]);
      }
    }
    for (int r = 0; r < count; r++) {
      for (int v = 0; v < 2; v++) {
        const __m256 total = bias == nullptr
                                 ? sum[r][v]
                                 : _mm256_add_ps(sum[r][v], _mm256_load_ps(bias + first + 8 * v));
        _mm256_store_ps(sums + (row + r) * kFloatTile + first + 8 * v, total);
      }
    }
  }
#endif
};

}  // namespace synapse
