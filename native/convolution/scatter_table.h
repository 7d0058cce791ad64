// Which sums the events of an input position reach, and through which weights.
//
// The offsets are computed once a call: a division for every event would cost more than its
// additions. They are all that differs between a plain and a transposed convolution.
#pragma once

#include <cstdint>
#include <vector>

#include "convolution/geometry.h"
#include "convolution/weights.h"

namespace synapse {

// One axis: for every input position a row of targets, the outputs that it reaches, in rising
// order, and the weights through which it does. With a stride above 1 rows have different lengths.
struct ScatterAxis {
  struct Target {
    int64_t sum, weight;  // offsets into the sums and into the weights of a channel
  };
  std::vector<Target> targets;
  std::vector<int32_t> count;
  int64_t most;  // length of a row

  // `sum` and `weight` are the distances of neighbouring outputs and weights in memory.
  ScatterAxis(bool transposed, int64_t size, int64_t out, int64_t kernel, int64_t stride,
              int64_t pad, int64_t dilation, int64_t sum, int64_t weight)
      : targets(static_cast<size_t>(size * kernel)),
        count(static_cast<size_t>(size)),
        most(kernel) {
    for (int64_t i = 0; i < size; i++) {
      for (int64_t k = 0; k < kernel; k++) {
        int64_t at;
        if (transposed) {
          at = i * stride + k * dilation - pad;
        } else {
          at = i + pad - (kernel - 1 - k) * dilation;
          if (at % stride != 0) continue;
          at /= stride;
        }
        if (at < 0 || at >= out) continue;
        const int64_t to = i * kernel + count[static_cast<size_t>(i)]++;
        targets[static_cast<size_t>(to)] = {at * sum, k * weight};
      }
    }
  }
};

struct ScatterTable {
  ScatterAxis down, across;
  int64_t blocks;   // of kOutputBlock sums that one weight of the kernel is for
  bool contiguous;  // neighbouring weights across are for neighbouring outputs

  ScatterTable(const ConvGeometry& g, const ConvWeights& w)
      : down(g.transposed, g.height, g.out_height, g.kernel_height, g.stride_y, g.pad_y,
             g.dilation_y, g.out_width * w.padded, w.row),
        across(g.transposed, g.width, g.out_width, g.kernel_width, g.stride_x, g.pad_x,
               g.dilation_x, w.padded, w.padded),
        blocks(w.padded / kOutputBlock),
        contiguous(g.dilation_x == 1 && (g.transposed || g.stride_x == 1)) {}
};

// The sums that the events of one position reach: rows of spans of blocks. Where neighbouring
// weights are for neighbouring outputs, a row is one span, which a single loop adds.
struct ScatterTargets {
  const ScatterAxis::Target *down, *across;
  int64_t rows, spans, blocks;

  ScatterTargets(const ScatterTable& table, int64_t y, int64_t x)
      : down(table.down.targets.data() + y * table.down.most),
        across(table.across.targets.data() + x * table.across.most),
        rows(table.down.count[static_cast<size_t>(y)]),
        spans(table.across.count[static_cast<size_t>(x)]),
        blocks(table.blocks) {
    if (table.contiguous && spans > 1) {
      blocks *= spans;
      spans = 1;
    }
  }
};

}  // namespace synapse
