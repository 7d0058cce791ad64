// Weighted sums of spikes: what synapses with integer weights have in common.
//
// Most inputs are silent, so a row of inputs is read once for its events, the inputs that are not
// zero, and only their weights are added. Sums of integers are exact in any order.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <memory>
#include <type_traits>
#include <vector>

#include "common.h"

namespace synapse {

constexpr int kTile = 128;  // sums that are kept in registers
constexpr int32_t kLargestInput = 1 << 15;

// Numbers that begin with a cache line: vectors of them that lie across two lines take twice the
// time.
template <class T>
class Lines {
 public:
  Lines() = default;
  explicit Lines(int64_t count, T value = T(0))
      : lines_(static_cast<size_t>((count + kEach - 1) / kEach)), count_(count) {
    fill(value);
  }
  T* data() { return lines_.empty() ? nullptr : lines_.data()->values; }
  const T* data() const { return lines_.empty() ? nullptr : lines_.data()->values; }
  int64_t size() const { return count_; }
  void fill(T value) { std::fill_n(data(), count_, value); }

 private:
  static constexpr int64_t kEach = 64 / static_cast<int64_t>(sizeof(T));
  struct alignas(64) Line {
    T values[kEach];
  };
  std::vector<Line> lines_;
  int64_t count_ = 0;
};

// The inputs of a row that are not zero.
struct Events {
  std::vector<int32_t> index, value;  // values are not kept where all are 1
  int64_t count = 0;
  int64_t total = 0;     // sum of their magnitudes
  bool ones = true;      // all values are 1
  bool integers = true;  // all values are integers below kLargestInput

  static constexpr int64_t room = 16;  // places behind the last, which vectors are written to

  explicit Events(int64_t inputs)
      : index(static_cast<size_t>(inputs + room)), value(static_cast<size_t>(inputs + room)) {}

  void read(const float* x, int64_t inputs) {
    begin();
#if defined(SYNAPSE_X86)
    // spikes first, which are zeros and ones; what else there is, is read once more
    static const int level = instruction_level();
    if (level >= 3 && (level >= 4 ? spikes_512(x, inputs) : spikes_256(x, inputs))) {
      total = count;
      return;
    }
    begin();
#endif
    scan(x, inputs);
  }

  void read(const uint8_t* x, int64_t inputs) {
    begin();
    scan(x, inputs);
  }

  // Take spikes that have been found already.
  void take(const int32_t* spikes, int64_t number) {
    begin();
    std::copy_n(spikes, number, index.data());
    count = total = number;
  }

 private:
  void begin() {
    count = total = 0;
    ones = integers = true;
  }

  template <class X>
  void scan(const X* x, int64_t inputs) {
    int64_t c = 0;
    for (; c + 8 <= inputs; c += 8) {  // eight silent inputs are skipped at once
      uint64_t bits[sizeof(X)], any = 0;
      std::memcpy(bits, x + c, sizeof bits);
      for (const uint64_t part : bits) any |= part;
      if (any == 0) continue;
      for (int64_t i = c; i < c + 8; i++) one(x[i], i);
    }
    for (; c < inputs; c++) one(x[c], c);
  }

#if defined(SYNAPSE_X86)
  // Read zeros and ones; false as soon as there is anything else.
  __attribute__((target("avx512f"))) bool spikes_512(const float* x, int64_t inputs) {
    int32_t* out = index.data();
    const __m512 one = _mm512_set1_ps(1.0f);
    __m512i at = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    const __m512i sixteen = _mm512_set1_epi32(16);
    int64_t c = 0;
    for (; c + 16 <= inputs; c += 16) {
      const __m512 values = _mm512_loadu_ps(x + c);
      const __mmask16 some = _mm512_cmp_ps_mask(values, _mm512_setzero_ps(), _CMP_NEQ_UQ);
      if (some) {
        if (_mm512_cmp_ps_mask(values, one, _CMP_EQ_OQ) != some) return false;
        // writes up to 15 places beyond, which `room` is for
        _mm512_storeu_si512(out + count, _mm512_maskz_compress_epi32(some, at));
        count += __builtin_popcount(some);
      }
      at = _mm512_add_epi32(at, sixteen);
    }
    return rest(x, c, inputs);
  }

  __attribute__((target("avx2"))) bool spikes_256(const float* x, int64_t inputs) {
    int32_t* out = index.data();
    int64_t c = 0;
    for (; c + 8 <= inputs; c += 8) {
      const __m256 values = _mm256_loadu_ps(x + c);
      int some = _mm256_movemask_ps(_mm256_cmp_ps(values, _mm256_setzero_ps(), _CMP_NEQ_UQ));
      if (some) {
        const __m256 are = _mm256_cmp_ps(values, _mm256_set1_ps(1.0f), _CMP_EQ_OQ);
        if (_mm256_movemask_ps(are) != some) return false;
        for (; some; some &= some - 1)
          out[count++] = static_cast<int32_t>(c + __builtin_ctz(static_cast<unsigned>(some)));
      }
    }
    return rest(x, c, inputs);
  }

  SYNAPSE_INLINE bool rest(const float* x, int64_t from, int64_t inputs) {
    for (int64_t c = from; c < inputs; c++) {
      if (x[c] == 0.0f) continue;
      if (x[c] != 1.0f) return false;
      index[static_cast<size_t>(count++)] = static_cast<int32_t>(c);
    }
    return true;
  }
#endif

  SYNAPSE_INLINE void one(float x, int64_t i) {
    const bool fits = std::fabs(x) < static_cast<float>(kLargestInput);  // a NaN does not
    const int32_t whole = static_cast<int32_t>(fits ? x : 0.0f);
    integers &= fits & (static_cast<float>(whole) == x);
    put(whole, i);
  }
  SYNAPSE_INLINE void one(uint8_t x, int64_t i) { put(x, i); }

  SYNAPSE_INLINE void put(int32_t x, int64_t i) {
    index[static_cast<size_t>(count)] = static_cast<int32_t>(i);
    value[static_cast<size_t>(count)] = x;
    ones &= (x == 0) | (x == 1);
    total += x < 0 ? -x : x;
    count += x != 0;
  }
};

// The spikes of some time steps of one sample whose inputs (C, T) have time last: each input is read
// along time, and put down in the list of every step in which it spikes.
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

  void give(int64_t step, Events* events) const {
    const int32_t* begin = spikes_.get() + step * room_;
    events->take(begin, ends_[step] - begin);
  }

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
  __attribute__((target("avx512f,avx512bw"))) bool read_512(const float* x, int64_t stride,
                                                            int64_t steps) {
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

  __attribute__((target("avx2"))) bool read_256(const float* x, int64_t stride, int64_t steps) {
    const __m256 one = _mm256_set1_ps(1.0f);
    for (int64_t c = 0; c < inputs_; c++, x += stride) {
      int64_t t = 0;
      for (; t + 8 <= steps; t += 8) {
        const __m256 values = _mm256_loadu_ps(x + t);
        const __m256 are = _mm256_cmp_ps(values, _mm256_setzero_ps(), _CMP_NEQ_UQ);
        unsigned some = static_cast<unsigned>(_mm256_movemask_ps(are));
        if (!some) continue;
        const __m256 ones = _mm256_cmp_ps(values, one, _CMP_EQ_OQ);
        if (static_cast<unsigned>(_mm256_movemask_ps(ones)) != some) return false;
        for (; some; some &= some - 1) put(t + __builtin_ctz(some), c);
      }
      if (!rest(x, c, t, steps)) return false;
    }
    return true;
  }
#endif

  int64_t inputs_, room_;
  std::unique_ptr<int32_t[]> spikes_;  // (kSteps, room), written only as far as there are spikes
  int32_t* ends_[kSteps];
};

// A matrix of integer weights, tile by tile: all that is read for a tile of outputs lies together,
// a row for every input. (Rows of all outputs would leave most of a cache's sets unused.)
//
// Bytes are stored with 128 added, in pairs: within 64 outputs the low byte of word i is output i
// and the high byte output 32 + i. Added up as words, and their high bytes once more by themselves,
// they give both sums with one shift and two additions, for up to 255 of them: 255 * 255 < 2**16.
template <class W>
struct Matrix {
  static constexpr bool kPaired = sizeof(W) == 1;
  static constexpr int32_t kAdded = kPaired ? 128 : 0;
  using Stored = std::conditional_t<kPaired, uint8_t, W>;

  int64_t inputs = 0, outputs = 0;
  int32_t largest = kPaired ? 255 : 0;  // magnitude of what is stored
  Lines<Stored> rows;

  Matrix() = default;
  Matrix(int64_t in, int64_t out)
      : inputs(in),
        outputs(out),
        rows(in * ((out + kTile - 1) / kTile * kTile), static_cast<Stored>(kAdded)) {}

  // Where an output of a tile stands in a row.
  static constexpr int64_t place(int64_t output) {
    if (!kPaired) return output;
    const int64_t within = output % 64;
    return output - within + (within < 32 ? 2 * within : 2 * (within - 32) + 1);
  }

  // The rows of the tile that begins with an output.
  const Stored* tile(int64_t first) const { return rows.data() + first * inputs; }

  void set(int64_t input, int64_t output, int32_t weight) {
    const int64_t within = output % kTile;
    rows.data()[(output - within) * inputs + input * kTile + place(within)] =
        static_cast<Stored>(weight + kAdded);
    if (!kPaired) largest = std::max(largest, weight < 0 ? -weight : weight);
  }

  int32_t at(int64_t input, int64_t output) const {
    const int64_t within = output % kTile;
    return tile(output - within)[input * kTile + place(within)] - kAdded;
  }

  // Whether the sums over some events fit an int32.
  bool fits(const Events& events) const {
    return static_cast<double>(events.total) * largest < 2147483648.0;
  }
};

// sums[o] = sum over events of value * weight[index][first + o], for a tile of outputs.
template <class W, class S>
struct TileSums {
  SYNAPSE_CLONES static void run(const Events& events, const Matrix<W>& matrix, int64_t first,
                                 S* sums) {
    using M = Matrix<W>;
    alignas(64) S stored[kTile] = {};
    for (int64_t e = 0; e < events.count; e++) {
      const auto* row = matrix.tile(first) + events.index[static_cast<size_t>(e)] * kTile;
      const S value = events.ones ? 1 : events.value[static_cast<size_t>(e)];
      SYNAPSE_INDEPENDENT
      for (int o = 0; o < kTile; o++) stored[o] += value * (row[o] - M::kAdded);
    }
    for (int o = 0; o < kTile; o++) sums[o] = stored[M::place(o)];
  }
};

#if defined(SYNAPSE_X86)
constexpr int64_t kShortEvents = 255;  // bytes whose sum fits 16 bits

// Written out for each instruction set, so that the sums stay in registers from event to event.
__attribute__((target("avx512f,avx512bw"))) inline void spike_sums_512(const Events& events,
                                                                       const Matrix<int8_t>& matrix,
                                                                       int64_t first,
                                                                       int32_t* sums) {
  const int32_t* index = events.index.data();
  const uint8_t* rows = matrix.tile(first);
  const __m512i added = _mm512_set1_epi32(-128 * static_cast<int32_t>(events.count));
  for (int v = 0; v < 8; v++) _mm512_storeu_si512(sums + 16 * v, added);
  for (int64_t from = 0; from < events.count; from += kShortEvents) {
    const int64_t to = std::min(events.count, from + kShortEvents);
    __m512i both[2], high[2];
    for (int v = 0; v < 2; v++) both[v] = high[v] = _mm512_setzero_si512();
    for (int64_t e = from; e < to; e++) {
      const uint8_t* row = rows + index[e] * kTile;
      for (int v = 0; v < 2; v++) {
        const __m512i words = _mm512_loadu_si512(row + 64 * v);
        both[v] = _mm512_add_epi16(both[v], words);
        high[v] = _mm512_add_epi16(high[v], _mm512_srli_epi16(words, 8));
      }
    }
    for (int v = 0; v < 2; v++) {
      const __m512i low = _mm512_sub_epi16(both[v], _mm512_slli_epi16(high[v], 8));
      for (int half = 0; half < 2; half++) {
        const __m512i part = half ? high[v] : low;
        int32_t* out = sums + 64 * v + 32 * half;
        const __m512i a = _mm512_cvtepu16_epi32(_mm512_castsi512_si256(part));
        const __m512i b = _mm512_cvtepu16_epi32(_mm512_extracti64x4_epi64(part, 1));
        _mm512_storeu_si512(out, _mm512_add_epi32(_mm512_loadu_si512(out), a));
        _mm512_storeu_si512(out + 16, _mm512_add_epi32(_mm512_loadu_si512(out + 16), b));
      }
    }
  }
}

__attribute__((target("avx2"))) inline void spike_sums_256(const Events& events,
                                                           const Matrix<int8_t>& matrix,
                                                           int64_t first, int32_t* sums) {
  const int32_t* index = events.index.data();
  const uint8_t* rows = matrix.tile(first);
  std::fill_n(sums, kTile, -128 * static_cast<int32_t>(events.count));
  for (int64_t from = 0; from < events.count; from += kShortEvents) {
    const int64_t to = std::min(events.count, from + kShortEvents);
    __m256i both[4], high[4];
    for (int v = 0; v < 4; v++) both[v] = high[v] = _mm256_setzero_si256();
    for (int64_t e = from; e < to; e++) {
      const uint8_t* row = rows + index[e] * kTile;
      for (int v = 0; v < 4; v++) {
        const __m256i words = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(row + 32 * v));
        both[v] = _mm256_add_epi16(both[v], words);
        high[v] = _mm256_add_epi16(high[v], _mm256_srli_epi16(words, 8));
      }
    }
    for (int v = 0; v < 4; v++) {
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
}
#endif

template <class W, class S>
void tile_sums(const Events& events, const Matrix<W>& matrix, int64_t first, S* sums) {
#if defined(SYNAPSE_X86)
  if constexpr (Matrix<W>::kPaired && sizeof(S) == 4) {
    static const int level = instruction_level();
    if (events.ones && level >= 4) return spike_sums_512(events, matrix, first, sums);
    if (events.ones && level >= 3) return spike_sums_256(events, matrix, first, sums);
  }
#endif
  TileSums<W, S>::run(events, matrix, first, sums);
}

// The op of a synapse: an input, a weight and a step for each of its parts, an output each. Its
// kernel says its name, its parts, whether the input may be of several types, and its shapes.
template <class Kernel>
struct SynapseOp : Ort::CustomOpBase<SynapseOp<Kernel>, Kernel, true> {
  const char* GetName() const { return Kernel::kName; }
  size_t GetInputTypeCount() const { return 1 + 2 * Kernel::kParts; }
  size_t GetOutputTypeCount() const { return Kernel::kParts; }
  ONNXTensorElementDataType GetInputType(size_t i) const {
    // weights have several types; the kernel looks
    const bool any = i == 0 ? Kernel::kAnyInput : i <= Kernel::kParts;
    return any ? ONNX_TENSOR_ELEMENT_DATA_TYPE_UNDEFINED : ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT;
  }
  ONNXTensorElementDataType GetOutputType(size_t) const {
    return ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT;
  }
  OrtStatusPtr CreateKernelV2(const OrtApi&, const OrtKernelInfo* info, void** kernel) const {
    return guarded(Kernel::kName, [&] { *kernel = std::make_unique<Kernel>(info).release(); });
  }

  SynapseOp() {
    OrtCustomOp::InferOutputShapeFn = [](const OrtCustomOp*, OrtShapeInferContext* context) {
      return guarded(Kernel::kName, [&] { Kernel::infer(Shapes(context)); });
    };
  }
};

// Registers the kernel of a synapse.
template <class Kernel>
struct RegisterSynapse {
  RegisterSynapse() {
    static const SynapseOp<Kernel> op;
    Register(op, Kernel::kName);
  }
};

}  // namespace synapse
