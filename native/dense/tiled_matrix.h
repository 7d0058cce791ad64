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
// high bytes has the same bound. Where the weights are small enough, `byte_events` events are added
// as bytes first: their sum stays below 2**8, so that no byte wraps.
#pragma once

#include <algorithm>
#include <cstdint>
#include <type_traits>

#include "base/aligned.h"
#include "dense/event_rows.h"

namespace synapse {

constexpr int kTileOutputs = 128;  // as many sums as stay in registers

template <class W>
class TiledMatrix {
 public:
  static constexpr bool kInterleaved = sizeof(W) == 1;
  using Stored = std::conditional_t<kInterleaved, uint8_t, W>;

  int64_t inputs = 0, outputs = 0;
  int32_t offset = 0;   // added to every stored weight
  int byte_events = 1;  // events whose stored bytes add up to less than 2**8
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
      for (offset = 128, byte_events = 1;
           byte_events < 8 && -least <= offset / 2 && most < offset / 2; byte_events *= 2)
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

}  // namespace synapse
