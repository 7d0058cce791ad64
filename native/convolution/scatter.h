// Convolutions where every event adds the weights of its neighbourhood to the sums around it.
//
// The sums of an output position lie side by side, output channels last and real before imaginary,
// so that a complex convolution is a real one with twice the output channels.
#pragma once

#include <cstdint>

#include "base/compiler.h"
#include "convolution/events_by_position.h"
#include "convolution/geometry.h"
#include "convolution/scatter_table.h"

namespace synapse {

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
