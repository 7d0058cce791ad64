// The weights of a dense synapse, laid out for the sums: in 8 bits where the file has int4 or int8,
// else in 16 bits. Constant weights are laid out once, when the session is created.
#pragma once

#include <cstdint>

#include "base/tensor.h"
#include "dense/tile_sums.h"
#include "dense/tiled_matrix.h"

namespace synapse {

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
