// Dense synapses with integer weights: the events of rows of inputs, and the sums of their weights.
// y[t, n, o] = step[o] * sum_c weight[o, c] * x[t, n, c], by itself (ops/dense.cpp) or with a
// neuron behind it (ops/dense_neuron.cpp).
#pragma once

#include <utility>

#include "synapse.h"

namespace synapse {

constexpr int kTile = 128;  // outputs whose weights lie together, and whose sums are in registers

// The spikes of some time steps of one sample whose inputs (C, T) have time last: each input is
// read along time, and put down in the list of every step in which it spikes.
class Turned {
 public:
  static constexpr int64_t kSteps = 320;  // lists whose ends stay in the first-level cache

  explicit Turned(int64_t inputs)
      : inputs_(inputs), room_(inputs + Events::room), spikes_(new int32_t[size(room_)]) {}

  // Read steps of inputs that lie `stride` values apart; false where there is anything but 0 and 1.
  template <class X>
  bool read(const X* x, int64_t stride, int64_t steps) {
    for (int64_t t = 0; t < steps; t++) ends_[t] = spikes_.get() + t * room_;
#if defined(SYNAPSE_X86)
    if constexpr (std::is_same_v<X, float>) {
      static const int level = instruction_level();
      if (level >= 4) return read_512(x, stride, steps);
      if (level >= 3) return read_256(x, stride, steps);
    }
#endif
    for (int64_t c = 0; c < inputs_; c++, x += stride)
      if (!rest(x, c, 0, steps)) return false;
    return true;
  }

  const int32_t* begin(int64_t step) const { return spikes_.get() + step * room_; }
  int64_t count(int64_t step) const { return ends_[step] - begin(step); }

 private:
  static size_t size(int64_t room) { return static_cast<size_t>(room * kSteps); }

  SYNAPSE_INLINE void put(int64_t step, int64_t input) {
    *ends_[step]++ = static_cast<int32_t>(input);
  }

  template <class X>
  SYNAPSE_INLINE bool rest(const X* x, int64_t input, int64_t from, int64_t steps) {
    for (int64_t t = from; t < steps; t++) {
      if (x[t] == X(0)) continue;
      if (x[t] != X(1)) return false;
      put(t, input);
    }
    return true;
  }

#if defined(SYNAPSE_X86)
  // Sixteen steps of 32 inputs at a time: their bits are turned, so that the inputs that spike in a
  // step are written behind one another without a branch.
  SYNAPSE_TARGET("avx512f,avx512bw") bool read_512(const float* x, int64_t stride, int64_t steps) {
    constexpr int64_t each = 32;
    const __m512 one = _mm512_set1_ps(1.0f);
    const __m512i sixteen = _mm512_set1_epi32(16);
    __m512i low = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    unsigned others = 0;
    for (int64_t c = 0; c < inputs_; c += each, x += each * stride) {
      const int64_t count = std::min(each, inputs_ - c);
      const int64_t next = c + 2 * each <= inputs_ ? each * stride : 0;
      const __m512i high = _mm512_add_epi32(low, sixteen);
      alignas(64) uint16_t bits[each] = {};
      for (int64_t t = 0; t < steps; t += 16) {
        const int64_t left = std::min<int64_t>(steps - t, 16);
        const __mmask16 here = static_cast<__mmask16>((1u << left) - 1);
        for (int64_t i = 0; i < count; i++) {
          const float* from = x + i * stride + t;
          _mm_prefetch(reinterpret_cast<const char*>(from + next), _MM_HINT_T0);
          const __m512 values = _mm512_maskz_loadu_ps(here, from);
          const unsigned some = _mm512_cmp_ps_mask(values, _mm512_setzero_ps(), _CMP_NEQ_UQ);
          others |= some ^ _mm512_cmp_ps_mask(values, one, _CMP_EQ_OQ);
          bits[i] = static_cast<uint16_t>(some);
        }
        // the sign of word i is whether input i spikes in the last step, then in the one before
        __m512i turning = _mm512_load_si512(bits);
        turning = _mm512_sll_epi16(turning, _mm_cvtsi64_si128(16 - left));
        for (int64_t j = left - 1; j >= 0; j--) {
          const __mmask32 spiking = _mm512_movepi16_mask(turning);
          turning = _mm512_add_epi16(turning, turning);
          int32_t* end = ends_[t + j];
          const __mmask16 first = static_cast<__mmask16>(spiking);
          const __mmask16 second = static_cast<__mmask16>(spiking >> 16);
          // writes up to 15 places beyond, which each list has room for
          _mm512_storeu_si512(end, _mm512_maskz_compress_epi32(first, low));
          end += __builtin_popcount(first);
          _mm512_storeu_si512(end, _mm512_maskz_compress_epi32(second, high));
          ends_[t + j] = end + __builtin_popcount(second);
        }
      }
      if (others) return false;
      low = _mm512_add_epi32(high, sixteen);
    }
    return true;
  }

  // The same, eight steps at a time.
  __attribute__((target("avx2"))) bool read_256(const float* x, int64_t stride, int64_t steps) {
    constexpr int64_t each = 32, across = 8;
    const __m256 zero = _mm256_setzero_ps(), one = _mm256_set1_ps(1.0f);
    const __m256i lanes = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    int others = 0;
    for (int64_t c = 0; c < inputs_; c += each, x += each * stride) {
      const int64_t count = std::min(each, inputs_ - c);
      const int64_t next = c + 2 * each <= inputs_ ? each * stride : 0;
      alignas(32) uint8_t bits[each] = {};
      for (int64_t t = 0; t < steps; t += across) {
        const int64_t left = std::min(steps - t, across);
        const __m256i here = _mm256_cmpgt_epi32(_mm256_set1_epi32(static_cast<int>(left)), lanes);
        for (int64_t i = 0; i < count; i++) {
          const float* from = x + i * stride + t;
          _mm_prefetch(reinterpret_cast<const char*>(from + next), _MM_HINT_T0);
          const __m256 values =
              left == across ? _mm256_loadu_ps(from) : _mm256_maskload_ps(from, here);
          const int some = _mm256_movemask_ps(_mm256_cmp_ps(values, zero, _CMP_NEQ_UQ));
          others |= some ^ _mm256_movemask_ps(_mm256_cmp_ps(values, one, _CMP_EQ_OQ));
          bits[i] = static_cast<uint8_t>(some);
        }
        // the sign of byte i is whether input i spikes in the last step, then in the one before
        __m256i turning = _mm256_load_si256(reinterpret_cast<const __m256i*>(bits));
        turning = _mm256_sll_epi32(turning, _mm_cvtsi64_si128(across - left));
        for (int64_t j = left - 1; j >= 0; j--) {
          const unsigned spiking = static_cast<unsigned>(_mm256_movemask_epi8(turning));
          turning = _mm256_add_epi8(turning, turning);
          int32_t* end = ends_[t + j];
          for (int q = 0; q < 4; q++)
            end += put_places(spiking >> 8 * q & 255, static_cast<int32_t>(c + 8 * q), end);
          ends_[t + j] = end;
        }
      }
      if (others) return false;
    }
    return true;
  }
#endif

  int64_t inputs_, room_;
  std::unique_ptr<int32_t[]> spikes_;  // (kSteps, room), written only as far as there are spikes
  int32_t* ends_[kSteps];
};

// The events of one row of inputs, wherever they lie.
struct Row {
  const int32_t *index, *value;  // no values where all are 1
  int64_t count, total;          // total: sum of the values' magnitudes
};

// The events of several rows, one row behind another.
class Piece {
 public:
  void clear() {
    rows_.clear();
    used_ = 0;
    integers_ = true;
  }

  void add_spikes(const int32_t* index, int64_t count) {
    std::copy_n(index, count, room(index_, count));
    rows_.push_back({used_, count, count, true, true});
    used_ += count;
  }

  void add(const Events& events) {
    if (events.ones && events.integers) return add_spikes(events.index.data(), events.count);
    const int64_t count = events.integers ? events.count : 0;
    std::copy_n(events.index.data(), count, room(index_, count));
    std::copy_n(events.value.data(), count, room(value_, count));
    rows_.push_back({used_, count, events.total, false, events.integers});
    used_ += count;
    integers_ &= events.integers;
  }

  int64_t size() const { return static_cast<int64_t>(rows_.size()); }
  bool integers() const { return integers_; }                 // of all rows
  bool integers(int64_t row) const { return at(row).whole; }  // else there are no events

  Row row(int64_t row) const {
    const Place& place = at(row);
    return {index_.data() + place.begin, place.ones ? nullptr : value_.data() + place.begin,
            place.count, place.total};
  }

 private:
  struct Place {
    int64_t begin, count, total;
    bool ones, whole;
  };

  const Place& at(int64_t row) const { return rows_[static_cast<size_t>(row)]; }

  // Where the next values go; values may have been left out before.
  int32_t* room(std::vector<int32_t>& values, int64_t count) const {
    const size_t least = static_cast<size_t>(used_ + count);
    if (values.size() < least) values.resize(least + least / 2);
    return values.data() + used_;
  }

  std::vector<Place> rows_;
  std::vector<int32_t> index_, value_;
  int64_t used_ = 0;
  bool integers_ = true;
};

// A matrix of integer weights, tile by tile: all that is read for a tile of outputs lies together,
// a row for every input. (Rows of all outputs would leave most of a cache's sets unused.)
//
// Bytes are stored with a number added that makes all of them positive, in pairs: within 64 outputs
// the low byte of word i is output i and the high byte output 32 + i. Added up as words, and their
// high bytes once more by themselves, they give both sums with one shift and two additions, until
// the sum of the low bytes reaches 2**16. The smaller the largest of them, the more events are
// added up as bytes before that: `group` of them do not reach 2**8.
template <class W>
class Matrix {
 public:
  static constexpr bool kPaired = sizeof(W) == 1;
  using Stored = std::conditional_t<kPaired, uint8_t, W>;

  int64_t inputs = 0, outputs = 0;
  int32_t added = 0;
  int group = 1;
  int32_t largest = 0;  // magnitude of what is stored

  Matrix() = default;

  // Weights (O, C) that `weight` gives by (output, input).
  template <class Weight>
  Matrix(int64_t in, int64_t out, const Weight& weight) : inputs(in), outputs(out) {
    int32_t least = 0, most = 0;
    for (int64_t o = 0; o < out; o++) {
      for (int64_t c = 0; c < in; c++) {
        least = std::min(least, weight(o, c));
        most = std::max(most, weight(o, c));
      }
    }
    largest = std::max(-least, most);
    if (kPaired) {
      for (added = 128, group = 1; group < 8 && -least <= added / 2 && most < added / 2; group *= 2)
        added /= 2;
      largest = 2 * added - 1;
    }
    rows_ = Lines<Stored>(in * ((out + kTile - 1) / kTile * kTile), static_cast<Stored>(added));
    for (int64_t o = 0; o < out; o++)
      for (int64_t c = 0; c < in; c++)
        rows_.data()[at(c, o)] = static_cast<Stored>(weight(o, c) + added);
  }

  // Where an output of a tile stands in a row.
  static constexpr int64_t place(int64_t output) {
    if (!kPaired) return output;
    const int64_t within = output % 64;
    return output - within + (within < 32 ? 2 * within : 2 * (within - 32) + 1);
  }

  // The rows of the tile that an output is in, from that output on: the first of 64.
  const Stored* tile(int64_t first) const {
    return rows_.data() + (first - first % kTile) * inputs + first % kTile;
  }

  int32_t weight(int64_t input, int64_t output) const {
    return rows_.data()[at(input, output)] - added;
  }

  // Whether the sums over some events fit an int32.
  bool fits(const Row& events) const {
    return static_cast<double>(events.total) * largest < 2147483648.0;
  }

 private:
  int64_t at(int64_t input, int64_t output) const {
    const int64_t within = output % kTile;
    return (output - within) * inputs + input * kTile + place(within);
  }

  Lines<Stored> rows_;
};

// What becomes of a tile's sums: out[o] = gain[o] * sum[o], for `count` outputs from `first` on.
struct Target {
  int64_t first;
  int count;  // up to kTile, from a multiple of 64 on within one tile
  const float* gain;
  bool shared;  // one gain for all
  float* out;
};

template <class W, class S>
struct TileSums {
  SYNAPSE_CLONES static void run(const Row& events, const Matrix<W>& matrix, const Target& to) {
    using M = Matrix<W>;
    alignas(64) S stored[kTile] = {};
    const int count = (to.count + 63) / 64 * 64;
    const S added = matrix.added;
    for (int64_t e = 0; e < events.count; e++) {
      const auto* row = matrix.tile(to.first) + events.index[e] * kTile;
      const S value = events.value == nullptr ? 1 : events.value[e];
      SYNAPSE_INDEPENDENT
      for (int o = 0; o < count; o++) stored[o] += value * (row[o] - added);
    }
    for (int o = 0; o < to.count; o++)
      to.out[o] = static_cast<float>(stored[M::place(o)]) * to.gain[to.shared ? 0 : o];
  }
};

#if defined(SYNAPSE_X86)
// Sums of spikes, written out for each instruction set, so that they stay in registers from event
// to event. `vectors` of 64 outputs each; `group` as the matrix has it.
template <int vectors, int group>
SYNAPSE_TARGET("avx512f,avx512bw")
void spike_sums_512(const Row& events, const Matrix<int8_t>& matrix, const Target& to) {
  const int32_t* index = events.index;
  const uint8_t* rows = matrix.tile(to.first);
  const int64_t most = 65535 / matrix.largest / group * group;  // whose low bytes fit 16 bits
  __m512i sums[4 * vectors];
  const __m512i added = _mm512_set1_epi32(-matrix.added * static_cast<int32_t>(events.count));
  for (__m512i& sum : sums) sum = added;
  for (int64_t e = 0; e < events.count;) {
    const int64_t end = std::min(events.count, e + most);
    __m512i both[vectors], high[vectors], bytes[vectors];
    for (int v = 0; v < vectors; v++) both[v] = high[v] = _mm512_setzero_si512();
    const auto widen = [&]() SYNAPSE_TARGET("avx512f,avx512bw") __attribute__((always_inline)) {
      for (int v = 0; v < vectors; v++) {
        both[v] = _mm512_add_epi16(both[v], bytes[v]);
        high[v] = _mm512_add_epi16(high[v], _mm512_srli_epi16(bytes[v], 8));
      }
    };
    for (; e + group <= end; e += group) {
      for (int k = 0; k < group; k++) {
        const uint8_t* row = rows + index[e + k] * kTile;
        for (int v = 0; v < vectors; v++) {
          const __m512i here = _mm512_load_si512(row + 64 * v);
          bytes[v] = k == 0 ? here : _mm512_add_epi8(bytes[v], here);
        }
      }
      widen();
    }
    for (; e < end; e++) {
      const uint8_t* row = rows + index[e] * kTile;
      for (int v = 0; v < vectors; v++) bytes[v] = _mm512_load_si512(row + 64 * v);
      widen();
    }
    for (int v = 0; v < vectors; v++) {
      const __m512i low = _mm512_sub_epi16(both[v], _mm512_slli_epi16(high[v], 8));
      for (int half = 0; half < 2; half++) {
        const __m512i part = half ? high[v] : low;
        __m512i* sum = sums + 4 * v + 2 * half;
        const __m512i a = _mm512_cvtepu16_epi32(_mm512_castsi512_si256(part));
        const __m512i b = _mm512_cvtepu16_epi32(_mm512_extracti64x4_epi64(part, 1));
        sum[0] = _mm512_add_epi32(sum[0], a);
        sum[1] = _mm512_add_epi32(sum[1], b);
      }
    }
  }
  const __m512 shared = _mm512_set1_ps(to.gain[0]);
  for (int i = 0; i < 4 * vectors; i++) {
    const int left = std::min(to.count - 16 * i, 16);
    if (left <= 0) break;
    const __mmask16 here = static_cast<__mmask16>((1u << left) - 1);
    const __m512 gain = to.shared ? shared : _mm512_maskz_loadu_ps(here, to.gain + 16 * i);
    _mm512_mask_storeu_ps(to.out + 16 * i, here, _mm512_mul_ps(_mm512_cvtepi32_ps(sums[i]), gain));
  }
}

template <int vectors, int group>
__attribute__((target("avx2"))) void spike_sums_256(const Row& events, const Matrix<int8_t>& matrix,
                                                    const Target& to) {
  const int32_t* index = events.index;
  const uint8_t* rows = matrix.tile(to.first);
  const int64_t most = 65535 / matrix.largest / group * group;
  alignas(32) int32_t sums[64 * vectors];
  std::fill_n(sums, 64 * vectors, -matrix.added * static_cast<int32_t>(events.count));
  for (int64_t e = 0; e < events.count;) {
    const int64_t end = std::min(events.count, e + most);
    __m256i both[2 * vectors], high[2 * vectors], bytes[2 * vectors];
    for (int v = 0; v < 2 * vectors; v++) both[v] = high[v] = _mm256_setzero_si256();
    const auto widen = [&]() __attribute__((target("avx2"), always_inline)) {
      for (int v = 0; v < 2 * vectors; v++) {
        both[v] = _mm256_add_epi16(both[v], bytes[v]);
        high[v] = _mm256_add_epi16(high[v], _mm256_srli_epi16(bytes[v], 8));
      }
    };
    for (; e + group <= end; e += group) {
      for (int k = 0; k < group; k++) {
        const auto* row = reinterpret_cast<const __m256i*>(rows + index[e + k] * kTile);
        for (int v = 0; v < 2 * vectors; v++) {
          const __m256i here = _mm256_load_si256(row + v);
          bytes[v] = k == 0 ? here : _mm256_add_epi8(bytes[v], here);
        }
      }
      widen();
    }
    for (; e < end; e++) {
      const auto* row = reinterpret_cast<const __m256i*>(rows + index[e] * kTile);
      for (int v = 0; v < 2 * vectors; v++) bytes[v] = _mm256_load_si256(row + v);
      widen();
    }
    for (int v = 0; v < 2 * vectors; v++) {
      const __m256i low = _mm256_sub_epi16(both[v], _mm256_slli_epi16(high[v], 8));
      for (int half = 0; half < 2; half++) {
        // words 16 to 31 of 64 outputs are in the odd registers
        int32_t* out = sums + 64 * (v / 2) + 32 * half + 16 * (v % 2);
        alignas(32) uint16_t words[16];
        _mm256_store_si256(reinterpret_cast<__m256i*>(words), half ? high[v] : low);
        for (int o = 0; o < 16; o++) out[o] += words[o];
      }
    }
  }
  for (int o = 0; o < to.count; o++)
    to.out[o] = static_cast<float>(sums[o]) * to.gain[to.shared ? 0 : o];
}

// The sums of spikes for a number of outputs and a group: found once a call.
using SpikeSums = void (*)(const Row&, const Matrix<int8_t>&, const Target&);

template <int vectors>
SpikeSums spike_sums(int group, bool wide) {
  switch (group) {
    case 1:
      return wide ? spike_sums_512<vectors, 1> : spike_sums_256<vectors, 1>;
    case 2:
      return wide ? spike_sums_512<vectors, 2> : spike_sums_256<vectors, 2>;
    case 4:
      return wide ? spike_sums_512<vectors, 4> : spike_sums_256<vectors, 4>;
    default:
      return wide ? spike_sums_512<vectors, 8> : spike_sums_256<vectors, 8>;
  }
}
#endif

// out[o] = gain[o] * sum over events of value * weight[index][first + o].
template <class W>
void tile_sums(const Row& events, const Matrix<W>& matrix, const Target& to) {
  if (!matrix.fits(events)) return TileSums<W, int64_t>::run(events, matrix, to);
#if defined(SYNAPSE_X86)
  if constexpr (Matrix<W>::kPaired) {
    static const int level = instruction_level();
    if (events.value == nullptr && level >= 3)
      return (to.count > 64 ? spike_sums<2> : spike_sums<1>)(matrix.group, level >= 4)(events,
                                                                                       matrix, to);
  }
#endif
  TileSums<W, int32_t>::run(events, matrix, to);
}

// Weights (O, C) of all outputs, in bytes where they fit, else in 16 bits.
struct Packed {
  int64_t inputs = 0, outputs = 0;
  bool wide = false;
  Matrix<int8_t> bytes;
  Matrix<int16_t> shorts;

  explicit Packed(const Input& weight) {
    if (weight.shape.size() < 2) throw CallError("a weight needs the axes (O, C, ...)");
    outputs = weight.shape[0];
    inputs = product(weight.shape, 1);
    wide = weight.type == ONNX_TENSOR_ELEMENT_DATA_TYPE_INT16;
    const auto at = [&](int64_t o, int64_t c) { return integer_weight(weight, o * inputs + c); };
    if (wide) {
      shorts = Matrix<int16_t>(inputs, outputs, at);
    } else {
      bytes = Matrix<int8_t>(inputs, outputs, at);
    }
  }

  int32_t at(int64_t c, int64_t o) const { return wide ? shorts.weight(c, o) : bytes.weight(c, o); }

  void sums(const Row& events, const Target& to) const {
    wide ? tile_sums(events, shorts, to) : tile_sums(events, bytes, to);
  }
};

constexpr const char* kTimeLast = "time_last";

// A dense synapse. `parts` is 2 where the weight is complex: one output for its real part, one for
// the imaginary. Its inputs are x, a weight for each part and a step for each part.
//
// With the attribute time_last the input is (N, C, T), as it comes from outside, and the outputs
// are (T, N, O) all the same: `Session` takes the Transpose before the node away. No file has it.
template <int parts>
class Dense {
 public:
  static constexpr int kInputs = 1 + 2 * parts;
  static constexpr const char* kName = parts == 1 ? "QuantizedDense" : "QuantizedComplexDense";

  explicit Dense(const OrtKernelInfo* raw) {
    const Ort::ConstKernelInfo info(raw);
    time_last_ = flag(info, kTimeLast);
    const char* names[] = {"T"};
    const ONNXTensorElementDataType types[] = {ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT};
    matmul_ = Ort::Op::Create(raw, "MatMul", "", 13, names, types, 1, nullptr, 0, 2, 1);
    for (int k = 0; k < parts; k++) {
      int constant = 0;
      const auto value = info.GetTensorConstantInput(static_cast<size_t>(1 + k), &constant);
      if (constant) packed_[k] = std::make_shared<const Packed>(Input(value));
    }
  }

  // What a call is about. A row is one time step of one sample, row t * samples + n.
  struct Call {
    Input x;
    bool bytes = false, time_last = false;
    int64_t steps = 0, samples = 0, inputs = 0, outputs = 0;  // outputs of the largest part
    std::shared_ptr<const Packed> weight[parts];
    const float* gain[parts] = {};
    int64_t gains[parts] = {};

    explicit Call(Input input) : x(std::move(input)) {}

    int64_t rows() const { return steps * samples; }
    int64_t stride() const { return time_last ? steps : 1; }
    int64_t begin(int64_t row) const {
      return time_last ? row % samples * inputs * steps + row / samples : row * inputs;
    }
    // about how long a row takes
    int64_t work() const { return 1 + inputs / 4 + inputs * outputs / 256; }

    // Where the sums of some outputs of a part go.
    Target target(int part, int64_t first, int count, float* out) const {
      return {first, count, gain[part] + (gains[part] == 1 ? 0 : first), gains[part] == 1, out};
    }
  };

  Call open(const Ort::KernelContext& context) const {
    Call call(Input(context, 0));
    const auto& shape = call.x.shape;
    if (shape.size() != 3)
      throw CallError(std::string("the input needs the axes ") +
                      (time_last_ ? "(N, C, T)" : "(T, N, C)") + ", got " + text(shape));
    call.bytes = call.x.type == ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT8;
    if (!call.bytes && call.x.type != ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT)
      throw CallError("the input must be float32 or uint8");
    call.steps = shape[time_last_ ? 2 : 0];
    call.samples = shape[time_last_ ? 0 : 1];
    call.inputs = shape[time_last_ ? 1 : 2];
    call.time_last = time_last_ && call.steps != 1;  // a single step lies the same way
    for (int k = 0; k < parts; k++) {
      call.weight[k] = packed_[k];
      if (!call.weight[k]) call.weight[k] = std::make_shared<const Packed>(Input(context, 1 + k));
      const Input step(context, 1 + parts + k);
      const Packed& weight = *call.weight[k];
      if (weight.inputs != call.inputs)
        throw CallError("a weight for " + std::to_string(weight.inputs) +
                        " inputs does not fit an input of " + text(shape));
      check_step(step, weight.outputs, "outputs");
      call.gain[k] = step.as<float>();
      call.gains[k] = step.size;
      call.outputs = std::max(call.outputs, weight.outputs);
    }
    return call;
  }

  // Read `count` rows from `first` on, `stride` rows apart. Of an input with time last these are
  // steps of one sample.
  void read(const Call& call, int64_t first, int64_t stride, int64_t count, Piece* piece) const {
    if (call.bytes) {
      read(call, call.x.template as<uint8_t>(), first, stride, count, piece);
    } else {
      read(call, call.x.template as<float>(), first, stride, count, piece);
    }
  }

  // All outputs (T, N, O) of each part, computed row by row.
  void run(const Ort::KernelContext& context, const Call& call, float* const* y) const {
    std::vector<uint8_t> left(static_cast<size_t>(call.rows()), 0);  // rows that are no integers
    // rows that follow each other, or, where time is last, steps of one sample
    const int64_t line = call.time_last ? call.steps : call.rows();
    const int64_t lines = call.time_last ? call.samples : 1;
    const int64_t stride = call.time_last ? call.samples : 1;
    const int64_t each = piece_of(call.rows(), line);
    const int64_t pieces = (line + each - 1) / each;
    const int64_t least = (1 << 15) / (call.work() * each) + 1;
    parallel(context, lines * pieces, least, [&](int64_t from, int64_t to) {
      const auto loan = pieces_.borrow([](const Piece&) { return true; },
                                       [] { return std::make_unique<Piece>(); });
      Piece& piece = *loan;
      for (int64_t i = from; i < to; i++) {
        const int64_t begin = i % pieces * each, count = std::min(each, line - begin);
        const int64_t first = i / pieces + begin * stride;
        piece.clear();
        read(call, first, stride, count, &piece);
        for (int k = 0; k < parts; k++) {
          const int64_t outputs = call.weight[k]->outputs;
          for (int64_t o = 0; o < outputs; o += kTile) {
            const int width = static_cast<int>(std::min<int64_t>(kTile, outputs - o));
            for (int64_t r = 0; r < count; r++) {
              float* out = y[k] + (first + r * stride) * outputs + o;
              call.weight[k]->sums(piece.row(r), call.target(k, o, width, out));
            }
          }
        }
        for (int64_t r = 0; r < count; r++)
          left[static_cast<size_t>(first + r * stride)] = !piece.integers(r);
      }
    });
    if (std::find(left.begin(), left.end(), 1) == left.end()) return;
    for (int k = 0; k < parts; k++) of_floats(context, call, k, left, y[k]);
  }

  // Rows that are read at once, of a line of them.
  static int64_t piece_of(int64_t rows, int64_t line) {
    const int64_t fair = (rows + 7) / 8;  // a piece for each of several threads
    const int64_t even = (std::max(fair, int64_t{1}) + 15) / 16 * 16;
    return std::max(int64_t{1}, std::min({Turned::kSteps, even, line}));
  }

 private:
  struct Scratch {
    int64_t inputs;
    Events events;
    std::unique_ptr<Turned> turned;  // where it is wanted

    explicit Scratch(int64_t count) : inputs(count), events(count) {}
  };

  template <class X>
  void read(const Call& call, const X* x, int64_t first, int64_t stride, int64_t count,
            Piece* piece) const {
    const int64_t inputs = call.inputs;
    const auto scratch = scratch_.borrow([&](const Scratch& kept) { return kept.inputs == inputs; },
                                         [&] { return std::make_unique<Scratch>(inputs); });
    Events& events = scratch->events;
    if (!call.time_last) {
      for (int64_t r = 0; r < count; r++) {
        events.read(x + call.begin(first + r * stride), inputs);
        piece->add(events);
      }
      return;
    }
    if (!scratch->turned) scratch->turned = std::make_unique<Turned>(inputs);
    const X* begin = x + call.begin(first);
    if (scratch->turned->read(begin, call.steps, count)) {
      for (int64_t t = 0; t < count; t++)
        piece->add_spikes(scratch->turned->begin(t), scratch->turned->count(t));
      return;
    }
    std::vector<X> row(static_cast<size_t>(inputs));
    for (int64_t t = 0; t < count; t++) {
      for (int64_t c = 0; c < inputs; c++) row[static_cast<size_t>(c)] = begin[c * call.steps + t];
      events.read(row.data(), inputs);
      piece->add(events);
    }
  }

  // The rows that are left, by ONNX Runtime's product of floats.
  void of_floats(const Ort::KernelContext& context, const Call& call, int part,
                 const std::vector<uint8_t>& left, float* y) const {
    const Packed& packed = *call.weight[part];
    const int64_t inputs = packed.inputs, outputs = packed.outputs;
    std::vector<float> weights(static_cast<size_t>(inputs * outputs)), some, products;
    for (int64_t c = 0; c < inputs; c++)
      for (int64_t o = 0; o < outputs; o++)
        weights[static_cast<size_t>(c * outputs + o)] = static_cast<float>(packed.at(c, o));
    std::vector<int64_t> chosen;
    for (int64_t r = 0; r < call.rows(); r++)
      if (left[static_cast<size_t>(r)]) chosen.push_back(r);
    for (const int64_t r : chosen) {
      for (int64_t c = 0; c < inputs; c++) {
        const int64_t at = call.begin(r) + c * call.stride();
        some.push_back(call.bytes ? call.x.template as<uint8_t>()[at]
                                  : call.x.template as<float>()[at]);
      }
    }
    products.resize(chosen.size() * static_cast<size_t>(outputs));
    const auto memory = Ort::MemoryInfo::CreateCpu(OrtArenaAllocator, OrtMemTypeDefault);
    const auto tensor = [&](std::vector<float>& data, int64_t height, int64_t width) {
      const int64_t shape[] = {height, width};
      return Ort::Value::CreateTensor<float>(memory, data.data(), data.size(), shape, 2);
    };
    const int64_t height = static_cast<int64_t>(chosen.size());
    const Ort::Value a = tensor(some, height, inputs), b = tensor(weights, inputs, outputs);
    Ort::Value product_of = tensor(products, height, outputs);
    const OrtValue* in[] = {a, b};
    OrtValue* out[] = {product_of};
    Ort::Op& matmul = const_cast<Ort::Op&>(matmul_);  // the wrapper's Invoke is not const
    matmul.Invoke(context.GetOrtKernelContext(), in, 2, out, 1);
    for (size_t i = 0; i < chosen.size(); i++)
      for (int64_t o = 0; o < outputs; o++)
        y[chosen[i] * outputs + o] =
            products[i * static_cast<size_t>(outputs) + static_cast<size_t>(o)] *
            call.gain[part][call.gains[part] == 1 ? 0 : o];
  }

  Ort::Op matmul_{nullptr};
  bool time_last_ = false;
  mutable Pool<Scratch> scratch_;
  mutable Pool<Piece> pieces_;
  std::shared_ptr<const Packed> packed_[parts];
};

}  // namespace synapse
