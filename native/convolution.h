// Convolutions with integer weights, and transposed ones, of one kernel or of a pair:
//
//   y[n, o, i, t] = step[o] * sum_{c, k} weight[o, c, k] * x[n, c, r(i, k), t],
//   y[n, o, r(i, k), t] = step[o] * sum over all i, c, k of weight[c, o, k] * x[n, c, i, t]
//
// with r(i, k) = i * stride + k * dilation - pad along height and along width, and groups.
//
// Every event, an input that is not zero, adds the weights of its neighbourhood to the sums around
// it, which lie outputs last, those of a pair's parts side by side: where neighbouring weights of a
// row of the kernel reach neighbouring sums, one loop adds them. That is so in a transposed
// convolution of any stride, and in a convolution with a stride of one. With larger strides an
// event reaches few sums there, here one and there two, and what is left to do is to guess wrong;
// so every sum collects its events instead, from rows of bits. Inputs that are no integers go
// through ONNX Runtime's own operators.
#pragma once

#include <optional>

#include "synapse.h"

namespace synapse {

constexpr int kGroup = 16;  // outputs are padded to whole groups

struct Geometry {
  bool transposed;
  int64_t batch, channels, height, width;  // input; batch counts time steps as well
  int64_t outputs, out_height, out_width;  // outputs of a part
  int64_t kernel_height, kernel_width, stride_y, stride_x, pad_y, pad_x, dilation_y, dilation_x;
  int64_t groups;

  int64_t places() const { return out_height * out_width; }
};

// Weights (O, C / groups, h, w, 1), or transposed (C, O / groups, h, w, 1), of all parts as
// [channel][row][column][part][output of the group], the last two padded. Rows and columns are in
// the order of the outputs that they reach.
struct Kernels {
  std::vector<int64_t> shape;
  Lines<int16_t> rows;
  std::vector<std::vector<float>> floats;  // as they came, for inputs that are no integers
  int64_t channels = 0, outputs = 0, height = 0, width = 0;
  int64_t group_outputs = 0, padded = 0, row = 0, channel = 0;
  int64_t largest_sum = 0;  // of magnitudes, over all that an output may see
  bool bytes = true;

  Kernels(const std::vector<Input>& weights, int64_t groups, const Placing& placing,
          bool transposed)
      : shape(weights[0].shape), floats(weights.size()) {
    for (const Input& weight : weights) {
      if (weight.shape.size() != 5 || weight.shape[4] != 1)
        throw CallError(std::string("a weight needs the axes ") +
                        (transposed ? "(C, O, h, w, 1)" : "(O, C, h, w, 1)") + ", got " +
                        text(weight.shape));
      if (weight.shape != shape)
        throw CallError("both weights need one shape, got " + text(shape) + " and " +
                        text(weight.shape));
      bytes = bytes && weight.type != ONNX_TENSOR_ELEMENT_DATA_TYPE_INT16;
    }
    if (groups < 1 || shape[0] % groups != 0)
      throw CallError(std::to_string(shape[0]) + (transposed ? " inputs" : " outputs") +
                      " do not part into " + std::to_string(groups) + " groups");
    channels = transposed ? shape[0] : shape[1] * groups;
    outputs = transposed ? shape[1] * groups : shape[0];
    height = shape[2];
    width = shape[3];
    group_outputs = outputs / groups;
    const int64_t parts = static_cast<int64_t>(weights.size());
    padded = (parts * group_outputs + kGroup - 1) / kGroup * kGroup;
    row = width * padded;
    channel = height * row;
    rows = Lines<int16_t>(channels * channel);
    const auto phases = [&](int64_t size, size_t axis) {
      return phases_of(size, transposed ? placing.strides[axis] : 1, placing.dilations[axis]);
    };
    const std::vector<int64_t> down = phases(height, 0), across = phases(width, 1);
    for (int64_t p = 0; p < parts; p++) {
      const Input& weight = weights[static_cast<size_t>(p)];
      std::vector<float>& values = floats[static_cast<size_t>(p)];
      values.resize(static_cast<size_t>(weight.size));
      // of magnitudes, by output and phase: weights of one phase alone meet at an output
      std::vector<int64_t> sums(static_cast<size_t>(outputs * height * width));
      const int64_t fan = shape[1];
      for (int64_t i = 0; i < weight.size; i++) {
        const int64_t x = i % width, y = i / width % height;
        const int64_t second = i / (width * height) % fan, first = i / (width * height * fan);
        const int64_t each = transposed ? channels / groups : group_outputs;
        const int64_t group = first / each;
        const int64_t c = transposed ? first : group * fan + second;
        const int64_t o = transposed ? second : first % each;
        const int64_t at_y = transposed ? y : height - 1 - y, at_x = transposed ? x : width - 1 - x;
        const int32_t value = integer_weight(weight, i);
        rows.data()[c * channel + at_y * row + at_x * padded + p * group_outputs + o] =
            static_cast<int16_t>(value);
        values[static_cast<size_t>(i)] = static_cast<float>(value);
        const int64_t phase = down[static_cast<size_t>(y)] * width + across[static_cast<size_t>(x)];
        int64_t& sum =
            sums[static_cast<size_t>((group * group_outputs + o) * height * width + phase)];
        sum += value < 0 ? -value : value;
        largest_sum = std::max(largest_sum, sum);
      }
    }
  }

 private:
  // For every weight along an axis the first that reaches the same outputs.
  static std::vector<int64_t> phases_of(int64_t size, int64_t stride, int64_t dilation) {
    std::vector<int64_t> found(static_cast<size_t>(size));
    for (int64_t k = 0; k < size; k++)
      while ((k - found[static_cast<size_t>(k)]) * dilation % stride != 0)
        found[static_cast<size_t>(k)]++;
    return found;
  }
};

// Which sums an input reaches along one axis, in rising order, and through which weights of
// `Kernels`: for every place of the input a row of pairs of offsets, found once a call, for a
// division an event would cost more than its sums.
struct Reach {
  struct Pair {
    int64_t sum, weight;
  };
  std::vector<Pair> pairs;
  std::vector<int32_t> count;
  int64_t most;  // pairs of a place at the most

  // Neighbouring outputs lie `sum` apart, and weights `weight`.
  Reach(bool transposed, int64_t size, int64_t out, int64_t kernel, int64_t stride, int64_t pad,
        int64_t dilation, int64_t sum, int64_t weight)
      : pairs(static_cast<size_t>(size * kernel)), count(static_cast<size_t>(size)), most(kernel) {
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
        pairs[static_cast<size_t>(to)] = {at * sum, k * weight};
      }
    }
  }
};

struct Reaches {
  Reach down, across;
  int64_t groups;     // of sums side by side that a weight across is for
  bool side_by_side;  // whether all weights across are for sums side by side

  Reaches(const Geometry& g, const Kernels& k)
      : down(g.transposed, g.height, g.out_height, g.kernel_height, g.stride_y, g.pad_y,
             g.dilation_y, g.out_width * k.padded, k.row),
        across(g.transposed, g.width, g.out_width, g.kernel_width, g.stride_x, g.pad_x,
               g.dilation_x, k.padded, k.padded),
        groups(k.padded / kGroup),
        side_by_side(g.dilation_x == 1 && (g.transposed || g.stride_x == 1)) {}
};

// The sums that the events of a place reach: rows of spans of groups side by side.
struct Reached {
  const Reach::Pair *down, *across;
  int64_t rows, spans, groups;

  Reached(const Reaches& reaches, int64_t y, int64_t x)
      : down(reaches.down.pairs.data() + y * reaches.down.most),
        across(reaches.across.pairs.data() + x * reaches.across.most),
        rows(reaches.down.count[static_cast<size_t>(y)]),
        spans(reaches.across.count[static_cast<size_t>(x)]),
        groups(reaches.groups) {
    if (reaches.side_by_side && spans > 1) {
      groups *= spans;
      spans = 1;
    }
  }
};

#if defined(SYNAPSE_X86)
// Weights of 8 bits as [channel][ky][kx][part][output], the last two padded, for sums that collect
// their events.
struct Taps {
  // outputs whose sums are kept in one register of 512 bits, or two of 256
  static constexpr int64_t kEach = 32;

  int64_t count = 0, padded = 0;
  Lines<int16_t> rows;

  // Nothing is kept where sums are not collected.
  Taps() = default;
  explicit Taps(const std::vector<Input>& weights) {
    const int64_t outputs = weights[0].shape[0], parts = static_cast<int64_t>(weights.size());
    count = product(weights[0].shape, 1);
    padded = (parts * outputs + kEach - 1) / kEach * kEach;
    rows = Lines<int16_t>(count * padded);
    for (int64_t p = 0; p < parts; p++)
      for (int64_t o = 0; o < outputs; o++)
        for (int64_t i = 0; i < count; i++)
          rows.data()[i * padded + p * outputs + o] =
              static_cast<int16_t>(integer_weight(weights[static_cast<size_t>(p)], o * count + i));
  }
};

// The spikes of an image as bits, a row of them for every row of a channel; pads are zeros.
class BitRows {
 public:
  explicit BitRows(const Geometry& g)
      : row_((g.pad_x + g.width + g.stride_x * g.out_width + 7) / 8 + 16),
        bits_(static_cast<size_t>((g.channels * g.height + 1) * row_)),
        rows_(static_cast<size_t>(g.channels * g.kernel_height)),
        row_of_(static_cast<size_t>(g.height * g.width)),
        column_(row_of_.size()) {
    for (int64_t i = 0; i < g.height * g.width; i++) {
      row_of_[static_cast<size_t>(i)] = static_cast<int32_t>(i / g.width);
      column_[static_cast<size_t>(i)] = static_cast<int32_t>(i % g.width);
    }
  }

  void read(const Geometry& g, const std::vector<Events>& planes) {
    std::fill(bits_.begin(), bits_.end(), uint8_t{0});
    for (int64_t c = 0; c < g.channels; c++) {
      const Events& events = planes[static_cast<size_t>(c)];
      for (int64_t e = 0; e < events.count; e++) {
        const size_t i = static_cast<size_t>(events.index[static_cast<size_t>(e)]);
        const int64_t x = column_[i] + g.pad_x;
        uint8_t* row = bits_.data() + (c * g.height + row_of_[i]) * row_;
        row[x / 8] = static_cast<uint8_t>(row[x / 8] | 1 << x % 8);
      }
    }
  }

  // Go to a row of outputs: one row of bits for every channel and row of the kernel.
  void go_to(const Geometry& g, int64_t out_y) {
    const uint8_t* silent = bits_.data() + g.channels * g.height * row_;
    for (int64_t c = 0; c < g.channels; c++) {
      for (int64_t k = 0; k < g.kernel_height; k++) {
        const int64_t y = out_y * g.stride_y - g.pad_y + k * g.dilation_y;
        const bool inside = y >= 0 && y < g.height;
        rows_[static_cast<size_t>(c * g.kernel_height + k)] =
            inside ? bits_.data() + (c * g.height + y) * row_ : silent;
      }
    }
  }

  // words[i] = bits of the kernel's rows [first, first + count) at output out_x + i, `width` of
  // each; kLanes of them.
  SYNAPSE_TARGET("avx512f")
  void words_512(const Geometry& g, int64_t first, int64_t count, int64_t out_x,
                 uint64_t* words) const {
    const int64_t x = out_x * g.stride_x, s = g.stride_x;
    const __m512i right =
        _mm512_add_epi64(_mm512_set1_epi64(x % 8),
                         _mm512_setr_epi64(0, s, 2 * s, 3 * s, 4 * s, 5 * s, 6 * s, 7 * s));
    const __m512i mask = _mm512_set1_epi64((int64_t{1} << g.kernel_width) - 1);
    __m512i found = _mm512_setzero_si512();
    for (int64_t i = 0; i < count; i++) {
      const __m512i row = _mm512_set1_epi64(bits_from(first + i, x));
      const __m512i part = _mm512_and_si512(_mm512_srlv_epi64(row, right), mask);
      found = _mm512_or_si512(found, _mm512_sll_epi64(part, _mm_cvtsi64_si128(i * g.kernel_width)));
    }
    _mm512_storeu_si512(words, found);
  }

  __attribute__((target("avx2"))) void words_256(const Geometry& g, int64_t first, int64_t count,
                                                 int64_t out_x, uint64_t* words) const {
    const int64_t x = out_x * g.stride_x, s = g.stride_x;
    const __m256i low =
        _mm256_add_epi64(_mm256_set1_epi64x(x % 8), _mm256_setr_epi64x(0, s, 2 * s, 3 * s));
    const __m256i high = _mm256_add_epi64(low, _mm256_set1_epi64x(4 * s));
    const __m256i mask = _mm256_set1_epi64x((int64_t{1} << g.kernel_width) - 1);
    __m256i lows = _mm256_setzero_si256(), highs = lows;
    for (int64_t i = 0; i < count; i++) {
      const __m256i row = _mm256_set1_epi64x(bits_from(first + i, x));
      const __m128i left = _mm_cvtsi64_si128(i * g.kernel_width);
      const __m256i a = _mm256_and_si256(_mm256_srlv_epi64(row, low), mask);
      const __m256i b = _mm256_and_si256(_mm256_srlv_epi64(row, high), mask);
      lows = _mm256_or_si256(lows, _mm256_sll_epi64(a, left));
      highs = _mm256_or_si256(highs, _mm256_sll_epi64(b, left));
    }
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(words), lows);
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(words + 4), highs);
  }

  int64_t rows() const { return static_cast<int64_t>(rows_.size()); }

 private:
  // 64 bits of a row of the kernel, from the byte of column x on.
  int64_t bits_from(int64_t row, int64_t x) const {
    int64_t bits;
    std::memcpy(&bits, rows_[static_cast<size_t>(row)] + x / 8, sizeof bits);
    return bits;
  }

  int64_t row_;
  std::vector<uint8_t> bits_;
  std::vector<const uint8_t*> rows_;
  std::vector<int32_t> row_of_, column_;  // of every place of the input
};

constexpr int64_t kLanes = 8;       // outputs whose bits are found at once
constexpr int64_t kShortWords = 4;  // words whose sums of bytes fit 16 bits: 4 * 63 * 128 < 2**15

// Sums of an image, each from the bits around its place.
class Collect {
 public:
  Collect(const Geometry& g, const Taps& taps) : g_(g), taps_(taps), each_(63 / g.kernel_width) {
    words_.resize(static_cast<size_t>((g.channels * g.kernel_height + each_ - 1) / each_ * kLanes));
  }

  // sums[place][o] of a row of outputs.
  void row(BitRows& bits, int64_t y, int32_t* sums) {
    static const bool wide = instruction_level() >= 4;
    const int64_t words = static_cast<int64_t>(words_.size()) / kLanes;
    bits.go_to(g_, y);
    for (int64_t x = 0; x < g_.out_width; x += kLanes) {
      for (int64_t w = 0; w < words; w++) {
        const int64_t first = w * each_, rows = std::min(each_, bits.rows() - first);
        uint64_t* to = words_.data() + w * kLanes;
        wide ? bits.words_512(g_, first, rows, x, to) : bits.words_256(g_, first, rows, x, to);
      }
      const int64_t count = std::min(kLanes, g_.out_width - x);
      wide ? lanes_512(count, words, sums) : lanes_256(count, words, sums);
      sums += count * taps_.padded;
    }
  }

 private:
  // The sums of `count` places, from the words of each.
  SYNAPSE_TARGET("avx512f,avx512bw")
  void lanes_512(int64_t count, int64_t words, int32_t* sums) const {
    for (int64_t i = 0; i < count; i++, sums += taps_.padded) {
      int64_t o = 0;
      for (; o + 2 * Taps::kEach <= taps_.padded; o += 2 * Taps::kEach)
        one_512<2>(i, o, words, sums + o);
      if (o < taps_.padded) one_512<1>(i, o, words, sums + o);
    }
  }

  __attribute__((target("avx2"))) void lanes_256(int64_t count, int64_t words,
                                                 int32_t* sums) const {
    for (int64_t i = 0; i < count; i++, sums += taps_.padded) {
      int64_t o = 0;
      for (; o + 2 * Taps::kEach <= taps_.padded; o += 2 * Taps::kEach)
        one_256<4>(i, o, words, sums + o);
      if (o < taps_.padded) one_256<2>(i, o, words, sums + o);
    }
  }

  template <int registers>
  SYNAPSE_TARGET("avx512f,avx512bw")
  SYNAPSE_LAMBDA
      inline void one_512(int64_t lane, int64_t first, int64_t words, int32_t* sums) const {
    const int64_t next = each_ * g_.kernel_width * taps_.padded;
    const int16_t* weights = taps_.rows.data() + first;
    const __m512i zero = _mm512_setzero_si512();
    __m512i total[registers], longs[2 * registers];
    for (int v = 0; v < registers; v++) total[v] = longs[2 * v] = longs[2 * v + 1] = zero;
    for (int64_t w = 0; w < words; w++, weights += next) {
      uint64_t word = words_[static_cast<size_t>(w * kLanes + lane)];
      for (; word; word &= word - 1) {
        const int16_t* row = weights + __builtin_ctzll(word) * taps_.padded;
        for (int v = 0; v < registers; v++)
          total[v] = _mm512_add_epi16(total[v], _mm512_loadu_si512(row + 32 * v));
      }
      if (w % kShortWords != kShortWords - 1 && w != words - 1) continue;
      for (int v = 0; v < registers; v++) {
        const __m512i low = _mm512_cvtepi16_epi32(_mm512_castsi512_si256(total[v]));
        const __m512i high = _mm512_cvtepi16_epi32(_mm512_extracti64x4_epi64(total[v], 1));
        longs[2 * v] = _mm512_add_epi32(longs[2 * v], low);
        longs[2 * v + 1] = _mm512_add_epi32(longs[2 * v + 1], high);
        total[v] = zero;
      }
    }
    for (int v = 0; v < 2 * registers; v++) _mm512_storeu_si512(sums + 16 * v, longs[v]);
  }

  template <int registers>
  __attribute__((target("avx2"))) SYNAPSE_LAMBDA inline void one_256(int64_t lane, int64_t first,
                                                                     int64_t words,
                                                                     int32_t* sums) const {
    const int64_t next = each_ * g_.kernel_width * taps_.padded;
    const int16_t* weights = taps_.rows.data() + first;
    const __m256i zero = _mm256_setzero_si256();
    __m256i total[registers], longs[2 * registers];
    for (int v = 0; v < registers; v++) total[v] = longs[2 * v] = longs[2 * v + 1] = zero;
    for (int64_t w = 0; w < words; w++, weights += next) {
      uint64_t word = words_[static_cast<size_t>(w * kLanes + lane)];
      for (; word; word &= word - 1) {
        const auto* row =
            reinterpret_cast<const __m256i*>(weights + __builtin_ctzll(word) * taps_.padded);
        for (int v = 0; v < registers; v++)
          total[v] = _mm256_add_epi16(total[v], _mm256_loadu_si256(row + v));
      }
      if (w % kShortWords != kShortWords - 1 && w != words - 1) continue;
      for (int v = 0; v < registers; v++) {
        const __m256i low = _mm256_cvtepi16_epi32(_mm256_castsi256_si128(total[v]));
        const __m256i high = _mm256_cvtepi16_epi32(_mm256_extracti128_si256(total[v], 1));
        longs[2 * v] = _mm256_add_epi32(longs[2 * v], low);
        longs[2 * v + 1] = _mm256_add_epi32(longs[2 * v + 1], high);
        total[v] = zero;
      }
    }
    auto* to = reinterpret_cast<__m256i*>(sums);
    for (int v = 0; v < 2 * registers; v++) _mm256_storeu_si256(to + v, longs[v]);
  }

  const Geometry& g_;
  const Taps& taps_;
  int64_t each_;  // rows of the kernel whose bits fit a word
  std::vector<uint64_t> words_;
};
#endif

// The events of some channels of an image, place by place.
class Gathered {
 public:
  // Events of channels [first, last), whose weights lie `channel` apart.
  void read(const std::vector<Events>& planes, int64_t first, int64_t last, int64_t channel,
            int64_t places, bool ones) {
    begin_.assign(static_cast<size_t>(places + 2), 0);
    int64_t total = 0;
    for (int64_t c = first; c < last; c++) {
      const Events& events = planes[static_cast<size_t>(c)];
      total += events.count;
      for (int64_t e = 0; e < events.count; e++) begin_[of(events, e) + 2]++;
    }
    for (size_t p = 2; p < begin_.size(); p++) begin_[p] += begin_[p - 1];
    if (static_cast<int64_t>(weight_.size()) < total) weight_.resize(static_cast<size_t>(total));
    if (!ones) value_.resize(weight_.size());
    for (int64_t c = first; c < last; c++) {
      const Events& events = planes[static_cast<size_t>(c)];
      const int32_t weight = static_cast<int32_t>((c - first) * channel);
      for (int64_t e = 0; e < events.count; e++) {
        const size_t to = static_cast<size_t>(begin_[of(events, e) + 1]++);
        weight_[to] = weight;
        if (!ones) value_[to] = events.ones ? 1 : events.value[static_cast<size_t>(e)];
      }
    }
  }

#if defined(SYNAPSE_X86)
  // The same from the channels themselves; false where there is anything but 0 and 1. Sixteen
  // places of 32 channels at a time: their bits are turned, so that a place has a word of channels.
  __attribute__((target("avx2"))) bool read_spikes(const float* x, int64_t channels,
                                                   int64_t channel, int64_t places) {
    constexpr int64_t across = 16, down = 32;
    const int64_t words = (channels + down - 1) / down;
    begin_.resize(static_cast<size_t>(places + 2));
    weight_.resize(std::max(weight_.size(), static_cast<size_t>(channels * places + 8)));
    turned_.resize(static_cast<size_t>(words * across));
    const __m256 zero = _mm256_setzero_ps(), one = _mm256_set1_ps(1.0f);
    const __m256i lanes = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    unsigned others = 0;
    int32_t count = 0;
    for (int64_t p = 0; p < places; p += across) {
      const int left = static_cast<int>(std::min(across, places - p));
      const __m256i here[2] = {_mm256_cmpgt_epi32(_mm256_set1_epi32(left), lanes),
                               _mm256_cmpgt_epi32(_mm256_set1_epi32(left - 8), lanes)};
      for (int64_t w = 0; w < words; w++) {
        alignas(32) uint8_t bits[2][down] = {};
        const float* from = x + w * down * places + p;
        for (int64_t c = 0; c < std::min(down, channels - w * down); c++, from += places) {
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
          // the sign of byte c is whether channel c spikes at the last place, then at the one
          // before
          __m256i turning = _mm256_load_si256(reinterpret_cast<const __m256i*>(bits[half]));
          for (int64_t j = 7; j >= 0; j--) {
            turned_[static_cast<size_t>((8 * half + j) * words + w)] =
                static_cast<uint32_t>(_mm256_movemask_epi8(turning));
            turning = _mm256_add_epi8(turning, turning);
          }
        }
      }
      if (others) return false;
      for (int64_t j = 0; j < left; j++) {
        begin_[static_cast<size_t>(p + j)] = count;
        for (int64_t w = 0; w < words; w++) {
          const uint32_t word = turned_[static_cast<size_t>(j * words + w)];
          for (int64_t c = w * down; c < std::min(channels, (w + 1) * down); c += 8)
            count += put_places(word >> c % down & 255, static_cast<int32_t>(c),
                                weight_.data() + count, static_cast<int32_t>(channel));
        }
      }
    }
    begin_[static_cast<size_t>(places)] = count;
    return true;
  }
#endif

  int64_t count(int64_t place) const {
    return begin_[static_cast<size_t>(place + 1)] - begin_[static_cast<size_t>(place)];
  }
  // Of every event at a place: where the weights of its channel begin, and its value.
  const int32_t* weight(int64_t place) const {
    return weight_.data() + begin_[static_cast<size_t>(place)];
  }
  const int32_t* value(int64_t place) const {
    return value_.data() + begin_[static_cast<size_t>(place)];
  }

 private:
  static size_t of(const Events& events, int64_t e) {
    return static_cast<size_t>(events.index[static_cast<size_t>(e)]);
  }

  std::vector<int32_t> begin_, weight_, value_;  // values are not kept where all are 1
  std::vector<uint32_t> turned_;                 // bits of channels, by place
};

// What the events of a place add: up to eight at once, so that a sum is read and written once for
// all of them. How many there are is guessed wrong at most once a place.
template <class S, bool ones>
struct Add {
  static constexpr int kMost = 8;

  const int16_t* weights;
  S* sums;

  void run(const Reached& reached, const int32_t* weight, const int32_t* value,
           int64_t events) const {
#if defined(SYNAPSE_X86)
    static const int level = instruction_level();
    if (level >= 3) return wide(reached, weight, value, events);
#endif
    for (; events > 0; events--, weight++)
      any(reached, *weight, ones ? S(1) : static_cast<S>(*value++));
  }

 private:
  void any(const Reached& reached, int64_t weight, S value) const {
    for (int64_t i = 0; i < reached.rows; i++) {
      for (int64_t j = 0; j < reached.spans; j++) {
        S* to = sums + reached.down[i].sum + reached.across[j].sum;
        const int16_t* from = weights + weight + reached.down[i].weight + reached.across[j].weight;
        SYNAPSE_INDEPENDENT
        for (int64_t o = 0; o < reached.groups * kGroup; o++) {
          const S each = from[o];
          to[o] += ones ? each : static_cast<S>(each * value);
        }
      }
    }
  }

#if defined(SYNAPSE_X86)
  __attribute__((target("avx2"))) void wide(const Reached& reached, const int32_t* weight,
                                            const int32_t* value, int64_t events) const {
    for (; events >= kMost; events -= kMost, weight += kMost, value += ones ? 0 : kMost)
      some<kMost>(reached, weight, value);
    switch (events) {
      case 7:
        return some<7>(reached, weight, value);
      case 6:
        return some<6>(reached, weight, value);
      case 5:
        return some<5>(reached, weight, value);
      case 4:
        return some<4>(reached, weight, value);
      case 3:
        return some<3>(reached, weight, value);
      case 2:
        return some<2>(reached, weight, value);
      case 1:
        return some<1>(reached, weight, value);
      default:
        return;
    }
  }

  template <int events>
  __attribute__((target("avx2"))) SYNAPSE_LAMBDA inline void some(const Reached& reached,
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
    for (int64_t i = 0; i < reached.rows; i++) {
      for (int64_t j = 0; j < reached.spans; j++) {
        S* to = sums + reached.down[i].sum + reached.across[j].sum;
        const int64_t from = reached.down[i].weight + reached.across[j].weight;
        for (int64_t o = 0; o < reached.groups * kGroup; o += each) {
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

// Add the events of some channels to the sums of an image.
template <class S, bool ones>
void add(const Geometry& g, const Gathered& events, const Reaches& reaches, const int16_t* weights,
         S* sums) {
  const Add<S, ones> all{weights, sums};
  for (int64_t y = 0, place = 0; y < g.height; y++) {
    for (int64_t x = 0; x < g.width; x++, place++) {
      const int64_t count = events.count(place);
      if (count > 0)
        all.run(Reached(reaches, y, x), events.weight(place), ones ? nullptr : events.value(place),
                count);
    }
  }
}

#if defined(SYNAPSE_X86)
SYNAPSE_INLINE SYNAPSE_TARGET("avx512f") __m512 floats_512(const int32_t* from) {
  return _mm512_cvtepi32_ps(_mm512_loadu_si512(from));
}
SYNAPSE_INLINE SYNAPSE_TARGET("avx512f") __m512 floats_512(const int16_t* from) {
  return _mm512_cvtepi32_ps(
      _mm512_cvtepi16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(from))));
}

// to[i * all + p] = from[p * padded + i] * gain[i], for 16 places p and `count` of 16 outputs i.
template <class S>
SYNAPSE_TARGET("avx512f")
inline void give_512(const S* from, int64_t padded, __m512 gain, int64_t count, float* to,
                     int64_t all) {
  __m512 a[16], b[16];
  for (int p = 0; p < 16; p++) a[p] = _mm512_mul_ps(floats_512(from + p * padded), gain);
  // quarters of 128 bits: pairs of rows, then fours of them
  for (int p = 0; p < 16; p += 2) {
    b[p] = _mm512_unpacklo_ps(a[p], a[p + 1]);
    b[p + 1] = _mm512_unpackhi_ps(a[p], a[p + 1]);
  }
  for (int p = 0; p < 16; p += 4) {
    __m512d pairs[4];
    for (int i = 0; i < 4; i++) pairs[i] = _mm512_castps_pd(b[p + i]);
    a[p] = _mm512_castpd_ps(_mm512_unpacklo_pd(pairs[0], pairs[2]));
    a[p + 1] = _mm512_castpd_ps(_mm512_unpackhi_pd(pairs[0], pairs[2]));
    a[p + 2] = _mm512_castpd_ps(_mm512_unpacklo_pd(pairs[1], pairs[3]));
    a[p + 3] = _mm512_castpd_ps(_mm512_unpackhi_pd(pairs[1], pairs[3]));
  }
  // now quarter q of a[4 g + r] holds output 4 q + r of the places 4 g to 4 g + 3
  for (int r = 0; r < 4; r++) {
    const __m512 low01 = _mm512_shuffle_f32x4(a[r], a[4 + r], 0x44);
    const __m512 high01 = _mm512_shuffle_f32x4(a[r], a[4 + r], 0xee);
    const __m512 low23 = _mm512_shuffle_f32x4(a[8 + r], a[12 + r], 0x44);
    const __m512 high23 = _mm512_shuffle_f32x4(a[8 + r], a[12 + r], 0xee);
    b[r] = _mm512_shuffle_f32x4(low01, low23, 0x88);
    b[4 + r] = _mm512_shuffle_f32x4(low01, low23, 0xdd);
    b[8 + r] = _mm512_shuffle_f32x4(high01, high23, 0x88);
    b[12 + r] = _mm512_shuffle_f32x4(high01, high23, 0xdd);
  }
  for (int64_t i = 0; i < count; i++) _mm512_storeu_ps(to + i * all, b[i]);
}
SYNAPSE_INLINE __attribute__((target("avx2"))) __m256 floats_256(const int32_t* from) {
  return _mm256_cvtepi32_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(from)));
}
SYNAPSE_INLINE __attribute__((target("avx2"))) __m256 floats_256(const int16_t* from) {
  return _mm256_cvtepi32_ps(
      _mm256_cvtepi16_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from))));
}

// The same for 8 places and `count` of 8 outputs.
template <class S>
__attribute__((target("avx2"))) inline void give_256(const S* from, int64_t padded, __m256 gain,
                                                     int64_t count, float* to, int64_t all) {
  __m256 a[8], b[8];
  for (int p = 0; p < 8; p++) a[p] = _mm256_mul_ps(floats_256(from + p * padded), gain);
  for (int p = 0; p < 8; p += 2) {
    b[p] = _mm256_unpacklo_ps(a[p], a[p + 1]);
    b[p + 1] = _mm256_unpackhi_ps(a[p], a[p + 1]);
  }
  for (int p = 0; p < 8; p += 4) {
    a[p] = _mm256_shuffle_ps(b[p], b[p + 2], 0x44);
    a[p + 1] = _mm256_shuffle_ps(b[p], b[p + 2], 0xee);
    a[p + 2] = _mm256_shuffle_ps(b[p + 1], b[p + 3], 0x44);
    a[p + 3] = _mm256_shuffle_ps(b[p + 1], b[p + 3], 0xee);
  }
  // now half h of a[4 g + r] holds output 4 h + r of the places 4 g to 4 g + 3
  for (int r = 0; r < 4; r++) {
    b[r] = _mm256_permute2f128_ps(a[r], a[4 + r], 0x20);
    b[4 + r] = _mm256_permute2f128_ps(a[r], a[4 + r], 0x31);
  }
  for (int64_t i = 0; i < count; i++) _mm256_storeu_ps(to + i * all, b[i]);
}
#endif

// out[o][place] = gain[o] * sums[place][o], for the outputs of a group and some places of `all`.
template <class S>
struct Give {
  static void run(const S* sums, int64_t places, int64_t padded, int64_t outputs, const float* gain,
                  int64_t gains, float* out, int64_t all) {
#if defined(SYNAPSE_X86)
    static const int level = instruction_level();
    if (level >= 4) return wide_512(sums, places, padded, outputs, gain, gains, out, all);
    if (level >= 3) return wide_256(sums, places, padded, outputs, gain, gains, out, all);
#endif
    any(sums, places, padded, outputs, gain, gains, out, all);
  }

 private:
#if defined(SYNAPSE_X86)
  SYNAPSE_TARGET("avx512f")
  static void wide_512(const S* sums, int64_t places, int64_t padded, int64_t outputs,
                       const float* gain, int64_t gains, float* out, int64_t all) {
    for (int64_t first = 0; first < outputs; first += kGroup) {
      const int64_t count = std::min<int64_t>(kGroup, outputs - first);
      const __mmask16 here = static_cast<__mmask16>((1u << count) - 1);
      const __m512 gained =
          gains == 1 ? _mm512_set1_ps(gain[0]) : _mm512_maskz_loadu_ps(here, gain + first);
      int64_t place = 0;
      for (; place + kGroup <= places; place += kGroup)
        give_512(sums + place * padded + first, padded, gained, count, out + first * all + place,
                 all);
      const S* rest = sums + place * padded + first;
      if (place < places)
        any(rest, places - place, padded, count, gains == 1 ? gain : gain + first, gains,
            out + first * all + place, all);
    }
  }

  __attribute__((target("avx2"))) static void wide_256(const S* sums, int64_t places,
                                                       int64_t padded, int64_t outputs,
                                                       const float* gain, int64_t gains, float* out,
                                                       int64_t all) {
    constexpr int64_t each = 8;
    for (int64_t first = 0; first < outputs; first += each) {
      const int64_t count = std::min(each, outputs - first);
      alignas(32) float gained[each];
      for (int64_t i = 0; i < each; i++)
        gained[i] = i < count ? gain[gains == 1 ? 0 : first + i] : 0.0f;
      const __m256 by = _mm256_load_ps(gained);
      const S* from = sums + first;
      float* to = out + first * all;
      int64_t place = 0;
      for (; place + each <= places; place += each)
        give_256(from + place * padded, padded, by, count, to + place, all);
      for (; place < places; place++)
        for (int64_t i = 0; i < count; i++)
          to[i * all + place] = static_cast<float>(from[place * padded + i]) * gained[i];
    }
  }
#endif

  SYNAPSE_CLONES static void any(const S* sums, int64_t places, int64_t padded, int64_t outputs,
                                 const float* gain, int64_t gains, float* out, int64_t all) {
    for (int64_t first = 0; first < outputs; first += kGroup) {
      const int64_t count = std::min<int64_t>(kGroup, outputs - first);
      alignas(64) float gained[kGroup], block[kGroup][kGroup];
      for (int64_t i = 0; i < kGroup; i++)
        gained[i] = i < count ? gain[gains == 1 ? 0 : first + i] : 0.0f;
      int64_t place = 0;
      for (; place + kGroup <= places; place += kGroup) {
        for (int p = 0; p < kGroup; p++) {
          const S* from = sums + (place + p) * padded + first;
          SYNAPSE_INDEPENDENT
          for (int i = 0; i < kGroup; i++) block[p][i] = static_cast<float>(from[i]) * gained[i];
        }
        for (int64_t i = 0; i < count; i++) {
          float* to = out + (first + i) * all + place;
          for (int p = 0; p < kGroup; p++) to[p] = block[p][i];
        }
      }
      for (; place < places; place++)
        for (int64_t i = 0; i < count; i++)
          out[(first + i) * all + place] =
              static_cast<float>(sums[place * padded + first + i]) * gained[i];
    }
  }
};

// The kernel of QuantizedConv and its kin.
template <bool transposed, int parts>
class Convolution {
 public:
  static constexpr const char* kName =
      transposed ? (parts == 2 ? "QuantizedComplexConvTranspose" : "QuantizedConvTranspose")
                 : (parts == 2 ? "QuantizedComplexConv" : "QuantizedConv");
  static constexpr int kParts = parts;
  static constexpr bool kAnyInput = true;

  static void infer(const Shapes& shapes) {
    for (int k = 0; k < parts; k++) shapes.image(0, 1 + k, k, transposed);
  }

  explicit Convolution(const OrtKernelInfo* raw) : placing_(Ort::ConstKernelInfo(raw)) {
    const Ort::ConstKernelInfo info(raw);
    group_ = info.GetAttribute<int64_t>("group");
    std::vector<Input> weights;
    for (size_t k = 1; k <= parts; k++) {
      int constant = 0;
      const auto value = info.GetTensorConstantInput(k, &constant);
      if (constant) weights.emplace_back(value);
    }
    if (weights.size() == parts) {
      packed_ = packed(weights);
#if defined(SYNAPSE_X86)
      if (collects(*packed_)) taps_ = Taps(weights);
#endif
    }
    const auto ints = [](const char* name, const std::vector<int64_t>& values) {
      return Ort::OpAttr(name, values.data(), static_cast<int>(values.size()), ORT_OP_ATTR_INTS);
    };
    const Ort::OpAttr attributes[] = {
        ints("strides", placing_.strides), ints("pads", placing_.pads),
        ints("dilations", placing_.dilations), Ort::OpAttr("group", &group_, 1, ORT_OP_ATTR_INT)};
    const char* names[] = {"T"};
    const ONNXTensorElementDataType types[] = {ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT};
    of_floats_ = Ort::Op::Create(raw, transposed ? "ConvTranspose" : "Conv", "", 11, names, types,
                                 1, attributes, 4, 2, 1);
  }

  OrtStatusPtr ComputeV2(OrtKernelContext* context) const {
    return guarded(kName, [&] { compute(Ort::KernelContext(context), context); });
  }

 private:
  // The output and the steps of every part.
  struct Outputs {
    float* y[parts];
    const Input* step[parts];

    Outputs at(int64_t offset) const {
      Outputs moved = *this;
      for (float*& y : moved.y) y += offset;
      return moved;
    }
    // outputs `first` and those behind it
    const float* gain(int part, int64_t first) const {
      return step[part]->template as<float>() + (step[part]->size == 1 ? 0 : first);
    }
  };

  std::shared_ptr<const Kernels> packed(const std::vector<Input>& weights) const {
    return std::make_shared<const Kernels>(weights, group_, placing_, transposed);
  }

  void compute(const Ort::KernelContext& context, OrtKernelContext* raw) const {
    const Input x(context, 0);
    if (x.shape.size() != 5)
      throw CallError("the input needs the axes (T, N, C, H, W), got " + text(x.shape));
    const bool bytes = x.type == ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT8;
    if (!bytes && x.type != ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT)
      throw CallError("the input must be float32 or uint8");
    std::vector<Input> weights, steps;
    for (size_t k = 0; k < parts; k++) {
      weights.emplace_back(context, 1 + k);
      steps.emplace_back(context, 1 + parts + k);
    }
    const std::shared_ptr<const Kernels> kernels = packed_ ? packed_ : packed(weights);
    const Geometry g = geometry(x, *kernels);
    const std::vector<int64_t> shape = {x.shape[0], x.shape[1], g.outputs, g.out_height,
                                        g.out_width};
    Outputs out;
    for (size_t k = 0; k < parts; k++) {
      check_step(steps[k], g.outputs, "outputs");
      out.y[k] = context.GetOutput(k, shape).template GetTensorMutableData<float>();
      out.step[k] = &steps[k];
    }
    const int64_t image = g.channels * g.height * g.width;
    if (g.batch * image == 0) {  // as far as there are outputs, nothing adds to them
      for (float* y : out.y) std::fill_n(y, product(shape), 0.0f);
      return;
    }
    const Reaches reaches(g, *kernels);
    std::atomic<bool> integers{true};
    const int64_t work = 1 + image / 4 + parts * g.outputs * g.places();
    parallel(context, g.batch, (1 << 14) / work + 1, [&](int64_t from, int64_t to) {
      const auto loan = scratch_.borrow([&](const Scratch& kept) { return kept.fits(g); },
                                        [&] { return std::make_unique<Scratch>(g); });
      Scratch& scratch = *loan;
      for (int64_t b = from; b < to && integers; b++) {
        const Outputs here = out.at(b * g.outputs * g.places());
        const bool done =
            bytes ? one_image(g, *kernels, x.as<uint8_t>() + b * image, reaches, scratch, here)
                  : one_image(g, *kernels, x.as<float>() + b * image, reaches, scratch, here);
        if (!done) integers = false;
      }
    });
    if (!integers) of_floats(raw, x, *kernels, g, out);
  }

#if defined(SYNAPSE_X86)
  // Whether sums collect their events: a word holds the bits of eight outputs side by side,
  // wherever in a byte they begin. With vectors of 256 bits that pays for few channels; those of
  // many are added together before a sum is written.
  bool collects(const Kernels& k) const {
    constexpr int64_t few = 32;  // rows of a kernel, over all channels
    const int64_t stride = placing_.strides[1], level = instruction_level();
    const bool pays = level >= 4 || (level >= 3 && k.channels * k.height <= few);
    return !transposed && pays && k.bytes && group_ == 1 && stride > 1 &&
           placing_.dilations[1] == 1 && k.width > 0 && 7 + (kLanes - 1) * stride + k.width <= 64;
  }
#endif

  struct Scratch {
    Geometry geometry;
    std::vector<Events> events;
    Gathered gathered;
    Lines<int16_t> shorts;
    Lines<int32_t> longs;
#if defined(SYNAPSE_X86)
    std::optional<BitRows> bits;
#endif

    explicit Scratch(const Geometry& g)
        : geometry(g), events(static_cast<size_t>(g.channels), Events(g.height * g.width)) {}

    // All but the batch is as it was.
    bool fits(const Geometry& g) const {
      return geometry.channels == g.channels && geometry.height == g.height &&
             geometry.width == g.width && geometry.kernel_height == g.kernel_height &&
             geometry.kernel_width == g.kernel_width;
    }
  };

  // Sums are read in whole groups, from where a part begins: behind the last there is room for one.
  template <class S>
  static S* room(Lines<S>& lines, int64_t count) {
    if (lines.size() < count + kGroup) lines = Lines<S>(count + kGroup);
    return lines.data();
  }

  // Whether the image holds integers whose sums fit; else nothing is written.
  template <class X>
  bool one_image(const Geometry& g, const Kernels& k, const X* x, const Reaches& reaches,
                 Scratch& scratch, const Outputs& out) const {
    const int64_t places = g.height * g.width;
#if defined(SYNAPSE_X86)
    // spikes first; what else there is, is read once more
    static const int vectors = instruction_level();
    if constexpr (std::is_same_v<X, float>) {
      const auto read = [&](int64_t first, int64_t last) {
        return scratch.gathered.read_spikes(x + first * places, last - first, k.channel, places);
      };
      if (vectors >= 3 && taps_.count == 0 && k.largest_sum < 2147483648 &&
          sums_of<true>(g, k, 1, reaches, scratch, out, read))
        return true;
    }
#endif
    int64_t most = 1;
    bool ones = true;
    for (int64_t c = 0; c < g.channels; c++) {
      Events& events = scratch.events[static_cast<size_t>(c)];
      events.read(x + c * places, places);
      if (!events.integers) return false;
      ones = ones && events.ones;
      if (!events.ones)
        for (int64_t e = 0; e < events.count; e++)
          most = std::max<int64_t>(most, std::abs(events.value[static_cast<size_t>(e)]));
    }
    if (static_cast<double>(k.largest_sum) * static_cast<double>(most) >= 2147483648.0)
      return false;
#if defined(SYNAPSE_X86)
    if (ones && taps_.count > 0 && are_many(g, scratch.events)) {
      int32_t* total = room(scratch.longs, g.out_width * taps_.padded);
      if (!scratch.bits) scratch.bits.emplace(g);
      scratch.bits->read(g, scratch.events);
      Collect collect(g, taps_);
      for (int64_t line = 0; line < g.out_height; line++) {
        collect.row(*scratch.bits, line, total);
        give(g, k, total, g.out_width, taps_.padded, 0, out.at(line * g.out_width));
      }
      return true;
    }
#endif
    const auto read = [&](int64_t first, int64_t last) {
      scratch.gathered.read(scratch.events, first, last, k.channel, places, ones);
      return true;
    };
    return ones ? sums_of<true>(g, k, most, reaches, scratch, out, read)
                : sums_of<false>(g, k, most, reaches, scratch, out, read);
  }

#if defined(SYNAPSE_X86)
  // Whether collecting is less work than handing out: an event costs as much as the look of a sum
  // at this many rows of its kernel.
  static bool are_many(const Geometry& g, const std::vector<Events>& planes) {
    constexpr int64_t rows_an_event = 16;
    int64_t events = 0;
    for (const Events& plane : planes) events += plane.count;
    return events * rows_an_event > g.places() * g.channels * g.kernel_height / 2;
  }
#endif

  // The sums in the fewest bits that hold them, for inputs up to `most`; false where `read`, which
  // gathers the events of some channels, says so.
  template <bool ones, class Read>
  static bool sums_of(const Geometry& g, const Kernels& k, int64_t most, const Reaches& reaches,
                      Scratch& scratch, const Outputs& out, const Read& read) {
    const int64_t count = g.places() * k.padded;
    if (k.largest_sum * most <= 32767)
      return sums<ones>(g, k, reaches, scratch, room(scratch.shorts, count), out, read);
    return sums<ones>(g, k, reaches, scratch, room(scratch.longs, count), out, read);
  }

  template <bool ones, class S, class Read>
  static bool sums(const Geometry& g, const Kernels& k, const Reaches& reaches, Scratch& scratch,
                   S* total, const Outputs& out, const Read& read) {
    // the weights of so many channels stay in the second-level cache from place to place
    const int64_t some =
        std::clamp<int64_t>((1 << 17) / std::max<int64_t>(k.channel, 1), 1,
                            std::max<int64_t>(1, INT32_MAX / (g.height * g.width)));
    const int64_t fan = g.channels / g.groups;
    for (int64_t group = 0; group < g.groups; group++) {
      std::fill_n(total, g.places() * k.padded, S(0));
      const int64_t end = (group + 1) * fan;
      for (int64_t first = group * fan; first < end; first += some) {
        if (!read(first, std::min(end, first + some))) return false;
        add<S, ones>(g, scratch.gathered, reaches, k.rows.data() + first * k.channel, total);
      }
      give(g, k, total, g.places(), k.padded, group * k.group_outputs, out);
    }
    return true;
  }

  // Give every part its sums of some places, for the outputs of a group from `first` on.
  template <class S>
  static void give(const Geometry& g, const Kernels& k, const S* total, int64_t places,
                   int64_t padded, int64_t first, const Outputs& out) {
    for (int p = 0; p < parts; p++)
      Give<S>::run(total + p * k.group_outputs, places, padded, k.group_outputs, out.gain(p, first),
                   out.step[p]->size, out.y[p] + first * g.places(), g.places());
  }

  Geometry geometry(const Input& x, const Kernels& k) const {
    Geometry g{};
    g.transposed = transposed;
    g.batch = x.shape[0] * x.shape[1];
    g.channels = x.shape[2];
    g.height = x.shape[3];
    g.width = x.shape[4];
    g.outputs = k.outputs;
    g.groups = group_;
    g.kernel_height = k.height;
    g.kernel_width = k.width;
    g.stride_y = placing_.strides[0];
    g.stride_x = placing_.strides[1];
    g.pad_y = placing_.pads[0];
    g.pad_x = placing_.pads[1];
    g.dilation_y = placing_.dilations[0];
    g.dilation_x = placing_.dilations[1];
    if (g.channels != k.channels)
      throw CallError("a weight for " + std::to_string(k.channels) +
                      " channels does not fit an input of " + text(x.shape));
    const auto [out_height, out_width] = placing_.image(x.shape, k.shape, transposed);
    g.out_height = out_height;
    g.out_width = out_width;
    return g;
  }

  // The whole call, by ONNX Runtime's operator for floats.
  void of_floats(OrtKernelContext* raw, const Input& x, const Kernels& k, const Geometry& g,
                 const Outputs& to) const {
    std::vector<float> cast;
    const float* data = x.as<float>();
    if (x.type == ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT8) {
      cast.assign(x.as<uint8_t>(), x.as<uint8_t>() + x.size);
      data = cast.data();
    }
    const auto memory = Ort::MemoryInfo::CreateCpu(OrtArenaAllocator, OrtMemTypeDefault);
    const auto tensor = [&](const float* values, std::vector<int64_t> shape) {
      return Ort::Value::CreateTensor<float>(memory, const_cast<float*>(values),
                                             static_cast<size_t>(product(shape)), shape.data(),
                                             shape.size());
    };
    const Ort::Value images = tensor(data, {g.batch, g.channels, g.height, g.width});
    for (int part = 0; part < parts; part++) {
      float* y = to.y[part];
      const Ort::Value weight = tensor(k.floats[static_cast<size_t>(part)].data(),
                                       {k.shape[0], k.shape[1], k.shape[2], k.shape[3]});
      Ort::Value maps = tensor(y, {g.batch, g.outputs, g.out_height, g.out_width});
      const OrtValue* in[] = {images, weight};
      OrtValue* out[] = {maps};
      Ort::Op& op = const_cast<Ort::Op&>(of_floats_);  // the wrapper's Invoke is not const
      op.Invoke(raw, in, 2, out, 1);
      for (int64_t i = 0; i < g.batch * g.outputs; i++) {
        const float gain = to.gain(part, i % g.outputs)[0];
        for (int64_t p = 0; p < g.places(); p++) y[i * g.places() + p] *= gain;
      }
    }
  }

  Placing placing_;
  int64_t group_ = 1;
  Ort::Op of_floats_{nullptr};
  std::shared_ptr<const Kernels> packed_;
  mutable Pool<Scratch> scratch_;
#if defined(SYNAPSE_X86)
  Taps taps_;
#endif
};

}  // namespace synapse
