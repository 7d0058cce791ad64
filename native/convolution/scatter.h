// Convolutions where every event adds the weights of its neighbourhood to the sums around it.
//
// The sums of an output position lie side by side, output channels last and real before imaginary,
// so that a complex convolution is a real one with twice the output channels.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "base/compiler.h"
#include "convolution/weights.h"
#include "synapse/events.h"

namespace synapse {

// The events of some channels of an image, sorted by position, so that all channels that spike at
// one position are added together.
class EventsByPosition {
 public:
  // Sorts the events of channels [first, last), by counting. The weights of a channel are `channel`
  // numbers long. With `ones` all values are 1 and not written.
  void read(const std::vector<Events>& planes, int64_t first, int64_t last, int64_t channel,
            int64_t positions, bool ones) {
    begin_.assign(positions + 2, 0);
    int64_t total = 0;
    for (int64_t c = first; c < last; c++) {
      const Events& events = planes[c];
      total += events.count;
      for (int64_t e = 0; e < events.count; e++) begin_[events.index[e] + 2]++;
    }
    for (size_t p = 2; p < begin_.size(); p++) begin_[p] += begin_[p - 1];
    if (static_cast<int64_t>(weight_.size()) < total) weight_.resize(total);
    if (!ones) value_.resize(weight_.size());
    for (int64_t c = first; c < last; c++) {
      const Events& events = planes[c];
      const int32_t weight = static_cast<int32_t>((c - first) * channel);
      for (int64_t e = 0; e < events.count; e++) {
        const int32_t to = begin_[events.index[e] + 1]++;
        weight_[to] = weight;
        if (!ones) value_[to] = events.ones ? 1 : events.value[e];
      }
    }
  }

#if defined(SYNAPSE_X86)
  // Reads the spikes of x (C, positions) itself; false where a value is not 0 or 1. Reads sixteen
  // positions of 32 channels at a time and transposes their bits, so that every position has words
  // of channels.
  SYNAPSE_AVX2 bool read_spikes(const float* x, int64_t channels, int64_t channel,
                                int64_t positions) {
    constexpr int64_t across = 16, down = 32;
    const int64_t words = (channels + down - 1) / down;
    begin_.resize(positions + 2);
    weight_.resize(std::max(weight_.size(), static_cast<size_t>(channels * positions + 8)));
    transposed_.resize(words * across);
    const __m256 zero = _mm256_setzero_ps(), one = _mm256_set1_ps(1.0f);
    const __m256i lanes = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    unsigned others = 0;
    int32_t count = 0;
    for (int64_t p = 0; p < positions; p += across) {
      const int left = static_cast<int>(std::min(across, positions - p));
      const __m256i here[2] = {_mm256_cmpgt_epi32(_mm256_set1_epi32(left), lanes),
                               _mm256_cmpgt_epi32(_mm256_set1_epi32(left - 8), lanes)};
      for (int64_t w = 0; w < words; w++) {
        alignas(32) uint8_t bits[2][down] = {};
        const float* from = x + w * down * positions + p;
        for (int64_t c = 0; c < std::min(down, channels - w * down); c++, from += positions) {
          for (int half = 0; half < 2; half++) {
            const __m256 values = left == across ? _mm256_loadu_ps(from + 8 * half)
                                                 : _mm256_maskload_ps(from + 8 * half, here[half]);
            const int some = _mm256_movemask_ps(_mm256_cmp_ps(values, zero, _CMP_NEQ_UQ));
            const int ones = _mm256_movemask_ps(_mm256_cmp_ps(values, one, _CMP_EQ_OQ));
            others |= static_cast<unsigned>(some ^ ones);
            bits[half][c] = static_cast<uint8_t>(some);
          }
        }
        for (int half = 0; half < 2; half++) {
          // The sign of byte c says whether channel c spikes at the last position. Doubling the
          // bytes moves the bit of the position before into the sign.
          __m256i signs = _mm256_load_si256(reinterpret_cast<const __m256i*>(bits[half]));
          for (int64_t j = 7; j >= 0; j--) {
            transposed_[(8 * half + j) * words + w] =
                static_cast<uint32_t>(_mm256_movemask_epi8(signs));
            signs = _mm256_add_epi8(signs, signs);
          }
        }
      }
      if (others) return false;
      for (int64_t j = 0; j < left; j++) {
        begin_[p + j] = count;
        for (int64_t w = 0; w < words; w++) {
          const uint32_t word = transposed_[j * words + w];
          for (int64_t c = w * down; c < std::min(channels, (w + 1) * down); c += 8)
            count += write_set_bits(word >> c % down & 255, static_cast<int32_t>(c),
                                    weight_.data() + count, static_cast<int32_t>(channel));
        }
      }
    }
    begin_[positions] = count;
    return true;
  }
#endif

  int64_t total(int64_t positions) const { return begin_[positions]; }
  int64_t count(int64_t position) const { return begin_[position + 1] - begin_[position]; }
  // For every event at a position: the offset of its channel's weights, and its value.
  const int32_t* weight(int64_t position) const { return weight_.data() + begin_[position]; }
  const int32_t* value(int64_t position) const { return value_.data() + begin_[position]; }

 private:
  std::vector<int32_t> begin_, weight_, value_;  // begin_: of the events of every position
  std::vector<uint32_t> transposed_;             // words of channels, by position
};

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
      : targets(size * kernel), count(size), most(kernel) {
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
        const int64_t to = i * kernel + count[i]++;
        targets[to] = {at * sum, k * weight};
      }
    }
  }
};

// Which sums the events of an input position reach, and through which weights. The offsets are
// computed once a call: a division for every event would cost more than its additions. They are all
// that differs between a plain and a transposed convolution.
struct ScatterTable {
  ScatterAxis down, across;
  int64_t blocks;   // of kOutputBlock sums that one weight of the kernel is for
  bool contiguous;  // neighbouring weights across are for neighbouring outputs

  template <class Weights>
  ScatterTable(const ConvGeometry& g, const Weights& w)
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
        rows(table.down.count[y]),
        spans(table.across.count[x]),
        blocks(table.blocks) {
    if (table.contiguous && spans > 1) {
      blocks *= spans;
      spans = 1;
    }
  }
};

// Adds the events of one position to sums of type S. Up to eight events are added at once, so that
// a sum is read and written once for all of them, and the branch on their number mispredicts at
// most once. S holds every partial sum, in any order: the caller has checked the sum of all
// magnitudes.
template <class S, bool ones>
struct ScatterAdd {
  static constexpr int kMost = 8;

  const int16_t* weights;
  S* sums;

  void run(const ScatterTargets& targets, const int32_t* weight, const int32_t* value,
           int64_t events) const {
#if defined(SYNAPSE_X86)
    static const int level = instruction_level();
    if (level >= 3) return add_256(targets, weight, value, events);
#endif
    for (; events > 0; events--, weight++)
      add_one(targets, *weight, ones ? S(1) : static_cast<S>(*value++));
  }

 private:
  void add_one(const ScatterTargets& targets, int64_t weight, S value) const {
    for (int64_t i = 0; i < targets.rows; i++) {
      for (int64_t j = 0; j < targets.spans; j++) {
        S* to = sums + targets.down[i].sum + targets.across[j].sum;
        const int16_t* from = weights + weight + targets.down[i].weight + targets.across[j].weight;
        SYNAPSE_INDEPENDENT
        for (int64_t o = 0; o < targets.blocks * kOutputBlock; o++) {
          const S each = from[o];
          to[o] += ones ? each : static_cast<S>(each * value);
        }
      }
    }
  }

#if defined(SYNAPSE_X86)
  SYNAPSE_AVX2 void add_256(const ScatterTargets& targets, const int32_t* weight,
                            const int32_t* value, int64_t events) const {
    for (; events >= kMost; events -= kMost, weight += kMost, value += ones ? 0 : kMost)
      add_events<kMost>(targets, weight, value);
    switch (events) {
      case 7:
        return add_events<7>(targets, weight, value);
      case 6:
        return add_events<6>(targets, weight, value);
      case 5:
        return add_events<5>(targets, weight, value);
      case 4:
        return add_events<4>(targets, weight, value);
      case 3:
        return add_events<3>(targets, weight, value);
      case 2:
        return add_events<2>(targets, weight, value);
      case 1:
        return add_events<1>(targets, weight, value);
      default:
        return;
    }
  }

  template <int events>
  SYNAPSE_AVX2 SYNAPSE_LAMBDA inline void add_events(const ScatterTargets& targets,
                                                     const int32_t* weight,
                                                     const int32_t* value) const {
    constexpr int each = 32 / sizeof(S);
    __m256i factor[events];
    const int16_t* first[events];
    for (int e = 0; e < events; e++) {
      const int32_t by = ones ? 1 : value[e];
      factor[e] = each == 16 ? _mm256_set1_epi16(static_cast<int16_t>(by)) : _mm256_set1_epi32(by);
      first[e] = weights + weight[e];
    }
    for (int64_t i = 0; i < targets.rows; i++) {
      for (int64_t j = 0; j < targets.spans; j++) {
        S* to = sums + targets.down[i].sum + targets.across[j].sum;
        const int64_t from = targets.down[i].weight + targets.across[j].weight;
        for (int64_t o = 0; o < targets.blocks * kOutputBlock; o += each) {
          __m256i total = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(to + o));
          for (int e = 0; e < events; e++) {
            const int16_t* row = first[e] + from + o;
            if constexpr (each == 16) {
              __m256i more = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(row));
              if (!ones) more = _mm256_mullo_epi16(more, factor[e]);
              total = _mm256_add_epi16(total, more);
            } else {
              __m256i more =
                  _mm256_cvtepi16_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(row)));
              if (!ones) more = _mm256_mullo_epi32(more, factor[e]);
              total = _mm256_add_epi32(total, more);
            }
          }
          _mm256_storeu_si256(reinterpret_cast<__m256i*>(to + o), total);
        }
      }
    }
  }
#endif
};

// Adds the events of some channels to the sums of an image.
template <class S, bool ones>
void scatter_add(const ConvGeometry& g, const EventsByPosition& events, const ScatterTable& table,
                 const int16_t* weights, S* sums) {
  const ScatterAdd<S, ones> adder{weights, sums};
  for (int64_t y = 0, position = 0; y < g.height; y++) {
    for (int64_t x = 0; x < g.width; x++, position++) {
      const int64_t count = events.count(position);
      if (count > 0)
        adder.run(ScatterTargets(table, y, x), events.weight(position),
                  ones ? nullptr : events.value(position), count);
    }
  }
}

}  // namespace synapse
