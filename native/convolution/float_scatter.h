// Float events of an image, and the sums of the weights around them: see scatter.h.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "base/compiler.h"
#include "convolution/scatter.h"

namespace synapse {

// The events of some channels of an image, sorted by position and then by channel.
class FloatEventsByPosition {
 public:
  // Reads x (C, positions). The weights of a channel are `channel` numbers long.
  void read(const float* x, int64_t channels, int64_t channel, int64_t positions) {
#if defined(SYNAPSE_X86)
    static const int level = instruction_level();
    ones_ = level >= 3 && spikes_.read_spikes(x, channels, channel, positions);
    if (ones_) return;
#endif
    begin_.assign(positions + 2, 0);
    for (int64_t c = 0; c < channels; c++)
      for (int64_t p = 0; p < positions; p++) begin_[p + 2] += x[c * positions + p] != 0.0f;
    for (size_t p = 2; p < begin_.size(); p++) begin_[p] += begin_[p - 1];
    const size_t total = begin_.back();
    if (weight_.size() < total) weight_.resize(total), value_.resize(total);
    for (int64_t c = 0; c < channels; c++) {
      for (int64_t p = 0; p < positions; p++) {
        const float value = x[c * positions + p];
        if (value == 0.0f) continue;
        const int32_t to = begin_[p + 1]++;
        weight_[to] = static_cast<int32_t>(c * channel);
        value_[to] = value;
      }
    }
  }

  bool ones() const { return ones_; }  // all values are 1
  int64_t count(int64_t position) const {
    return ones_ ? spikes_.count(position) : begin_[position + 1] - begin_[position];
  }
  // For every event at a position: the offset of its channel's weights, and its value.
  const int32_t* weight(int64_t position) const {
    return ones_ ? spikes_.weight(position) : weight_.data() + begin_[position];
  }
  const float* value(int64_t position) const { return value_.data() + begin_[position]; }

 private:
  bool ones_ = false;
  EventsByPosition spikes_;
  std::vector<int32_t> begin_, weight_;
  std::vector<float> value_;
};

// Adds the events of one position to the sums that they reach, in their order. Up to eight events
// are added at once, so that a sum is read and written once for all of them.
template <bool ones>
struct FloatScatterAdd {
  static constexpr int kMost = 8;

  const float* weights;
  float* sums;

  void run(const ScatterTargets& targets, const int32_t* weight, const float* value,
           int64_t events) const {
#if defined(SYNAPSE_X86)
    static const int level = instruction_level();
    if (level >= 4) return add_512(targets, weight, value, events);
    if (level >= 3) return add_256(targets, weight, value, events);
#endif
    for (; events > 0; events--, weight++)
      add_one(targets, weights + *weight, ones ? 1.0f : *value++, sums);
  }

 private:
  SYNAPSE_CLONES static void add_one(const ScatterTargets& targets, const float* weight,
                                     float value, float* sums) {
    for (int64_t i = 0; i < targets.rows; i++) {
      for (int64_t j = 0; j < targets.spans; j++) {
        float* to = sums + targets.down[i].sum + targets.across[j].sum;
        const float* from = weight + targets.down[i].weight + targets.across[j].weight;
        SYNAPSE_INDEPENDENT
        for (int64_t o = 0; o < targets.blocks * kOutputBlock; o++)
          to[o] += ones ? from[o] : from[o] * value;
      }
    }
  }

#if defined(SYNAPSE_X86)
#define SYNAPSE_FLOAT_SCATTER(ADD, EVENTS, TARGET)                                          \
  TARGET void ADD(const ScatterTargets& targets, const int32_t* weight, const float* value, \
                  int64_t events) const {                                                   \
    for (; events >= kMost; events -= kMost, weight += kMost, value += ones ? 0 : kMost)    \
      EVENTS<kMost>(targets, weight, value);                                                \
    switch (events) {                                                                       \
      case 7:                                                                               \
        return EVENTS<7>(targets, weight, value);                                           \
      case 6:                                                                               \
        return EVENTS<6>(targets, weight, value);                                           \
      case 5:                                                                               \
        return EVENTS<5>(targets, weight, value);                                           \
      case 4:                                                                               \
        return EVENTS<4>(targets, weight, value);                                           \
      case 3:                                                                               \
        return EVENTS<3>(targets, weight, value);                                           \
      case 2:                                                                               \
        return EVENTS<2>(targets, weight, value);                                           \
      case 1:                                                                               \
        return EVENTS<1>(targets, weight, value);                                           \
      default:                                                                              \
        return;                                                                             \
    }                                                                                       \
  }
  SYNAPSE_FLOAT_SCATTER(add_512, events_512, SYNAPSE_AVX512)
  SYNAPSE_FLOAT_SCATTER(add_256, events_256, SYNAPSE_AVX2)
#undef SYNAPSE_FLOAT_SCATTER

  template <int events>
  SYNAPSE_AVX512 SYNAPSE_LAMBDA inline void events_512(const ScatterTargets& targets,
                                                       const int32_t* weight,
                                                       const float* value) const {
    __m512 factor[events];
    const float* first[events];
    for (int e = 0; e < events; e++) {
      factor[e] = _mm512_set1_ps(ones ? 1.0f : value[e]);
      first[e] = weights + weight[e];
    }
    for (int64_t i = 0; i < targets.rows; i++) {
      for (int64_t j = 0; j < targets.spans; j++) {
        float* to = sums + targets.down[i].sum + targets.across[j].sum;
        const int64_t from = targets.down[i].weight + targets.across[j].weight;
        for (int64_t o = 0; o < targets.blocks * kOutputBlock; o += 16) {
          __m512 total = _mm512_load_ps(to + o);
          for (int e = 0; e < events; e++) {
            const __m512 more = _mm512_load_ps(first[e] + from + o);
            total = _mm512_add_ps(total, ones ? more : _mm512_mul_ps(more, factor[e]));
          }
          _mm512_store_ps(to + o, total);
        }
      }
    }
  }

  template <int events>
  SYNAPSE_AVX2 SYNAPSE_LAMBDA inline void events_256(const ScatterTargets& targets,
                                                     const int32_t* weight,
                                                     const float* value) const {
    __m256 factor[events];
    const float* first[events];
    for (int e = 0; e < events; e++) {
      factor[e] = _mm256_set1_ps(ones ? 1.0f : value[e]);
      first[e] = weights + weight[e];
    }
    for (int64_t i = 0; i < targets.rows; i++) {
      for (int64_t j = 0; j < targets.spans; j++) {
        float* to = sums + targets.down[i].sum + targets.across[j].sum;
        const int64_t from = targets.down[i].weight + targets.across[j].weight;
        for (int64_t o = 0; o < targets.blocks * kOutputBlock; o += 8) {
          __m256 total = _mm256_load_ps(to + o);
          for (int e = 0; e < events; e++) {
            const __m256 more = _mm256_load_ps(first[e] + from + o);
            total = _mm256_add_ps(total, ones ? more : _mm256_mul_ps(more, factor[e]));
          }
          _mm256_store_ps(to + o, total);
        }
      }
    }
  }
#endif
};

// Adds the events of some channels to the sums of an image.
template <bool ones>
void float_scatter_add(const ConvGeometry& g, const FloatEventsByPosition& events,
                       const ScatterTable& table, const float* weights, float* sums) {
  const FloatScatterAdd<ones> adder{weights, sums};
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
