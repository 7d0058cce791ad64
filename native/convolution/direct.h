// Plain convolutions of integers of which few are zero: every product is computed, two at a time.
//
// An event costs an entry in a list and a branch that mispredicts. Where a kernel has few weights,
// or most inputs are not zero, as after a max pool, it is less work to multiply all. Inputs are
// packed as pairs of channels in 16 bits, and one instruction multiplies a pair by the weights of
// eight outputs and adds both products in 32 bits.
#pragma once

#include <algorithm>
#include <cstdint>
#include <utility>

#include "base/call.h"
#include "base/compiler.h"
#include "base/memory.h"
#include "convolution/weights.h"
#include "synapse/events.h"

#if defined(SYNAPSE_X86)
namespace synapse {

// Weights (O, C, h, w, 1) as [block of 16 outputs][ky][kx][pair of channels][output][channel of the
// pair].
struct DirectWeights {
  int64_t pairs = 0, blocks = 0, taps = 0;
  AlignedVector<int16_t> rows;
  AlignedVector<float> floats;  // [block of 8 outputs][ky][kx][channel][output]

  // Stays empty where the convolution is not used.
  DirectWeights() = default;
  explicit DirectWeights(const Input& weight) {
    const int64_t outputs = weight.shape[0], channels = weight.shape[1];
    taps = weight.shape[2] * weight.shape[3];
    pairs = (channels + 1) / 2;
    blocks = (outputs + kOutputBlock - 1) / kOutputBlock;
    rows = AlignedVector<int16_t>(blocks * taps * pairs * 2 * kOutputBlock);
    floats = AlignedVector<float>(blocks * kOutputBlock * taps * channels);
    for (int64_t o = 0; o < outputs; o++)
      for (int64_t c = 0; c < channels; c++)
        for (int64_t k = 0; k < taps; k++) {
          const int32_t value = integer_weight(weight, (o * channels + c) * taps + k);
          rows.data()[((o / kOutputBlock * taps + k) * pairs + c / 2) * 2 * kOutputBlock +
                      o % kOutputBlock * 2 + c % 2] = static_cast<int16_t>(value);
          floats.data()[((o / 8 * taps + k) * channels + c) * 8 + o % 8] =
              static_cast<float>(value);
        }
  }
};

// An image as pairs of channels, padded, and the sums of all its outputs. An image that no integers
// are is a plane a channel, and multiplied as floats.
class DirectConv {
 public:
  int64_t events = 0;  // inputs that are not zero
  int64_t most = 0;    // the largest magnitude

  explicit DirectConv(const ConvGeometry& geometry) : g_(lengthened(geometry)) {
    rows_ = std::max(g_.pad_y + g_.height,
                     reach(g_.out_height, g_.stride_y, g_.kernel_height, g_.dilation_y));
    row_ = std::max(g_.pad_x + g_.width,
                    reach(g_.out_width, g_.stride_x, g_.kernel_width, g_.dilation_x));
    plane_ = rows_ * row_;
    planes_ = AlignedVector<int32_t>((g_.channels + 1) / 2 * rows_ * row_ + kLanes);
  }

  // Packs an image; false where an input is no integer of 16 bits.
  SYNAPSE_AVX2 bool read(const float* x) {
    const int64_t positions = g_.height * g_.width;
    const __m256i lanes = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    __m256i magnitudes = _mm256_setzero_si256();
    unsigned others = 0;
    events = 0;
    for (int64_t c = 0; c < g_.channels; c += 2) {
      const bool both = c + 1 < g_.channels;
      for (int64_t y = 0; y < g_.height; y++) {
        const float* first = x + c * positions + y * g_.width;
        const float* second = both ? first + positions : first;
        int32_t* to = planes_.data() + (c / 2 * rows_ + y + g_.pad_y) * row_ + g_.pad_x;
        for (int64_t i = 0; i < g_.width; i += kLanes) {
          const __m256i here =
              _mm256_cmpgt_epi32(_mm256_set1_epi32(static_cast<int>(g_.width - i)), lanes);
          const __m256i low = integers(_mm256_maskload_ps(first + i, here), others, magnitudes);
          __m256i high = _mm256_setzero_si256();
          if (both) high = integers(_mm256_maskload_ps(second + i, here), others, magnitudes);
          // zeros beyond a row: into its pad and into rows that follow
          _mm256_storeu_si256(reinterpret_cast<__m256i*>(to + i),
                              _mm256_blend_epi16(low, _mm256_slli_epi32(high, 16), 0b10101010));
        }
      }
    }
    alignas(32) uint32_t each[kLanes];
    _mm256_store_si256(reinterpret_cast<__m256i*>(each), magnitudes);
    most = *std::max_element(each, each + kLanes);
    return others == 0 && most < kLargestInput;
  }

  // Computes the sums of an image of floats in floats, rounded as sums of floats are in any order.
  SYNAPSE_AVX2 void run_floats(const DirectWeights& w, const float* x, float* sums,
                               int64_t padded) {
    if (floats_.size() == 0) floats_ = AlignedVector<float>(g_.channels * plane_);
    for (int64_t c = 0; c < g_.channels; c++)
      for (int64_t y = 0; y < g_.height; y++)
        std::copy_n(x + (c * g_.height + y) * g_.width, g_.width,
                    floats_.data() + c * plane_ + (y + g_.pad_y) * row_ + g_.pad_x);
    for (int64_t y = 0; y < g_.out_height; y++) {
      for (int64_t o = 0; o < g_.outputs; o += kLanes) {
        float* to = sums + y * g_.out_width * padded + o;
        int64_t at = 0;
        for (; at + 4 <= g_.out_width; at += 4)
          add_floats<4>(w, o, y, at, to + at * padded, padded);
        for (; at < g_.out_width; at++) add_floats<1>(w, o, y, at, to + at * padded, padded);
      }
    }
  }

  // Whether all products are less work than so many events of an image, scattered or gathered. The
  // figures are cycles on an AMD EPYC (Zen 4), fitted to 12 shapes at 2 to 60 % of events.
  bool pays(const DirectWeights& w, int64_t count, bool gathers) const {
    const auto number = [](int64_t value) { return static_cast<double>(value); };
    const double positions = number(g_.height * g_.width), events = number(count);
    const double outputs = number(g_.out_height * g_.out_width),
                 inputs = positions * number(g_.channels);
    const double taps = number(g_.kernel_height * g_.kernel_width), blocks = number(w.blocks);
    const double all = outputs * (10 + 1.5 * taps * number(w.pairs) * blocks) + 0.6 * inputs;
    const double reached = taps * outputs / positions * blocks;  // blocks of sums, by an event
    const double gathered = 8 * positions + 0.8 * inputs + events * (8 + 2.5 * reached);
    const double scattered =
        15 * positions + 1.3 * inputs + 1.6 * events * reached + 45 * std::min(events, positions);
    return all < (gathers ? gathered : scattered);
  }

  // Computes the sums of an image, [position][output], `padded` numbers a position.
  void run(const DirectWeights& w, int32_t* sums, int64_t padded) const {
    for (int64_t y = 0; y < g_.out_height; y++) {
      for (int64_t b = 0; b < w.blocks; b++) {
        int32_t* to = sums + y * g_.out_width * padded + b * kOutputBlock;
        if (g_.outputs - b * kOutputBlock > kLanes) {
          row<true>(w, b, y, to, padded);
        } else {
          row<false>(w, b, y, to, padded);
        }
      }
    }
  }

 private:
  static constexpr int64_t kLanes = 8;

  // The sums of some neighbouring positions of eight outputs.
  template <int count>
  SYNAPSE_AVX2 void add_floats(const DirectWeights& w, int64_t first, int64_t y, int64_t x,
                               float* to, int64_t padded) const {
    const float* weights = w.floats.data() + first * w.taps * g_.channels;
    __m256 sums[count];
    for (int i = 0; i < count; i++) sums[i] = _mm256_setzero_ps();
    for (int64_t ky = 0; ky < g_.kernel_height; ky++) {
      for (int64_t kx = 0; kx < g_.kernel_width; kx++) {
        const float* from = floats_.data() + (y * g_.stride_y + ky * g_.dilation_y) * row_ +
                            x * g_.stride_x + kx * g_.dilation_x;
        for (int64_t c = 0; c < g_.channels; c++, from += plane_, weights += kLanes) {
          const __m256 weight = _mm256_load_ps(weights);
          for (int i = 0; i < count; i++)
            sums[i] = _mm256_add_ps(sums[i],
                                    _mm256_mul_ps(_mm256_set1_ps(from[i * g_.stride_x]), weight));
        }
      }
    }
    for (int i = 0; i < count; i++) _mm256_storeu_ps(to + i * padded, sums[i]);
  }

  template <bool both>
  void row(const DirectWeights& w, int64_t block, int64_t y, int32_t* to, int64_t padded) const {
    int64_t x = 0;
    for (; x + 4 <= g_.out_width; x += 4) add<4, both>(w, block, y, x, to + x * padded, padded);
    for (; x < g_.out_width; x++) add<1, both>(w, block, y, x, to + x * padded, padded);
  }

  // The sums of some neighbouring positions of one block of outputs, or of its first half.
  template <int count, bool both>
  SYNAPSE_AVX2 void add(const DirectWeights& w, int64_t block, int64_t y, int64_t x, int32_t* to,
                        int64_t padded) const {
    const int64_t taps = g_.kernel_height * g_.kernel_width;
    const int16_t* weights = w.rows.data() + block * taps * w.pairs * 2 * kOutputBlock;
    __m256i low[count], high[count];
    for (int i = 0; i < count; i++) low[i] = high[i] = _mm256_setzero_si256();
    for (int64_t ky = 0; ky < g_.kernel_height; ky++) {
      for (int64_t kx = 0; kx < g_.kernel_width; kx++) {
        const int32_t* from = planes_.data() + (y * g_.stride_y + ky * g_.dilation_y) * row_ +
                              x * g_.stride_x + kx * g_.dilation_x;
        for (int64_t p = 0; p < w.pairs; p++, from += plane_, weights += 2 * kOutputBlock) {
          const __m256i first = _mm256_load_si256(reinterpret_cast<const __m256i*>(weights));
          const __m256i second =
              _mm256_load_si256(reinterpret_cast<const __m256i*>(weights + kOutputBlock));
          for (int i = 0; i < count; i++) {
            const __m256i pair = _mm256_set1_epi32(from[i * g_.stride_x]);
            low[i] = _mm256_add_epi32(low[i], _mm256_madd_epi16(pair, first));
            if (both) high[i] = _mm256_add_epi32(high[i], _mm256_madd_epi16(pair, second));
          }
        }
      }
    }
    for (int i = 0; i < count; i++) {
      _mm256_storeu_si256(reinterpret_cast<__m256i*>(to + i * padded), low[i]);
      if (both) _mm256_storeu_si256(reinterpret_cast<__m256i*>(to + i * padded + kLanes), high[i]);
    }
  }

  // Eight floats as integers; takes note of those that are none, and of their magnitudes.
  SYNAPSE_AVX2 SYNAPSE_LAMBDA inline __m256i integers(__m256 x, unsigned& others,
                                                      __m256i& magnitudes) {
    const __m256i whole = _mm256_cvtps_epi32(x);
    const __m256 again = _mm256_cvtepi32_ps(whole);
    others |= static_cast<unsigned>(_mm256_movemask_ps(_mm256_cmp_ps(again, x, _CMP_NEQ_UQ)));
    magnitudes = _mm256_max_epu32(magnitudes, _mm256_abs_epi32(whole));
    events += __builtin_popcount(static_cast<unsigned>(
        _mm256_movemask_ps(_mm256_cmp_ps(x, _mm256_setzero_ps(), _CMP_NEQ_UQ))));
    return whole;
  }

  static int64_t reach(int64_t outputs, int64_t stride, int64_t kernel, int64_t dilation) {
    return (outputs - 1) * stride + (kernel - 1) * dilation + 1;
  }

  // The same convolution with long rows: neighbouring positions of a row are computed together.
  static ConvGeometry lengthened(ConvGeometry g) {
    if (g.kernel_height * g.kernel_width == 1 && g.out_height == g.height &&
        g.out_width == g.width && g.stride_y * g.stride_x == 1 && g.pad_y + g.pad_x == 0) {
      g.width *= g.height;
      g.out_width *= g.out_height;
      g.height = g.out_height = 1;
    } else if (g.width == 1 && g.out_width == 1 && g.kernel_width == 1 && g.pad_x == 0) {
      std::swap(g.height, g.width);
      std::swap(g.out_height, g.out_width);
      std::swap(g.kernel_height, g.kernel_width);
      std::swap(g.stride_y, g.stride_x);
      std::swap(g.pad_y, g.pad_x);
      std::swap(g.dilation_y, g.dilation_x);
    }
    return g;
  }

  ConvGeometry g_;
  int64_t rows_, row_, plane_;  // of a padded plane
  AlignedVector<int32_t> planes_;
  AlignedVector<float> floats_;  // made when it is first needed
};

}  // namespace synapse
#endif
