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

#if defined(SYNAPSE_X86)
// Where a byte has its bits, the lowest first.
struct BitPlaces {
  uint8_t of[256][8] = {};

  constexpr BitPlaces() {
    for (int byte = 0; byte < 256; byte++)
      for (int bit = 0, i = 0; bit < 8; bit++)
        if (byte >> bit & 1) of[byte][i++] = static_cast<uint8_t>(bit);
  }
};
inline constexpr BitPlaces kBitPlaces;

// Put down (base + place) * step for each bit of a byte; return how many. Eight numbers are
// written.
__attribute__((target("avx2"))) inline int put_places(unsigned byte, int32_t base, int32_t* to,
                                                      int32_t step = 1) {
  const __m128i places = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(kBitPlaces.of[byte]));
  const __m256i at = _mm256_add_epi32(_mm256_set1_epi32(base), _mm256_cvtepu8_epi32(places));
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(to),
                      _mm256_mullo_epi32(at, _mm256_set1_epi32(step)));
  return __builtin_popcount(byte);
}
#endif

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
  SYNAPSE_TARGET("avx512f") bool spikes_512(const float* x, int64_t inputs) {
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
    const __m256 zero = _mm256_setzero_ps(), one = _mm256_set1_ps(1.0f);
    int32_t* out = index.data();
    int64_t c = 0;
    for (; c + 8 <= inputs; c += 8) {
      const __m256 values = _mm256_loadu_ps(x + c);
      const int some = _mm256_movemask_ps(_mm256_cmp_ps(values, zero, _CMP_NEQ_UQ));
      if (_mm256_movemask_ps(_mm256_cmp_ps(values, one, _CMP_EQ_OQ)) != some) return false;
      count += put_places(static_cast<unsigned>(some), static_cast<int32_t>(c), out + count);
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
