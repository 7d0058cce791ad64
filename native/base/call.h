// What a kernel uses of ONNX Runtime: errors, attributes, tensors, threads, and its own operators.
//
// Inputs are positional. No kernel reads the name of an input.
#pragma once

#include <algorithm>
#include <cstdint>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

// initialised by hand: the library is loaded into a process that brings its own ONNX Runtime, and
// `RegisterCustomOps` receives that one's function table
#define ORT_API_MANUAL_INIT
#include <onnxruntime_cxx_api.h>
#undef ORT_API_MANUAL_INIT

#include "base/compiler.h"

namespace synapse {

using Shape = std::vector<int64_t>;

inline std::string text(const char* words) { return words; }
inline std::string text(int64_t number) { return std::to_string(number); }
inline std::string text(const Shape& shape) {
  std::string out = "(";
  for (size_t i = 0; i < shape.size(); i++) out += (i ? ", " : "") + std::to_string(shape[i]);
  return out + ")";
}

// A kernel throws this for a call that it cannot compute. ONNX Runtime reports the sentence, which
// joins words, numbers and shapes.
struct CallError : std::runtime_error {
  template <class... Part>
  explicit CallError(const Part&... parts) : std::runtime_error((text(parts) + ...)) {}
};

inline int64_t product(const Shape& shape, size_t from = 0) {
  int64_t out = 1;
  for (size_t i = from; i < shape.size(); i++) out *= shape[i];
  return out;
}

// The value of an attribute that is 0 or 1; 0 where the node does not have it.
inline bool flag(const Ort::ConstKernelInfo& info, const char* name) {
  int64_t value = 0;
  // a missing attribute is an error status, which leaves the value as it is
  Ort::Status(Ort::GetApi().KernelInfoGetAttribute_int64(info, name, &value));
  return value != 0;
}

constexpr ONNXTensorElementDataType kFloat = ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT;
constexpr ONNXTensorElementDataType kUint8 = ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT8;

// The shape, type and data of an input.
struct Input {
  Shape shape;
  const void* data;
  ONNXTensorElementDataType type;
  int64_t size;

  Input(const Ort::KernelContext& context, size_t index) : Input(context.GetInput(index)) {}

  explicit Input(const Ort::ConstValue& value) {
    const auto info = value.GetTensorTypeAndShapeInfo();
    shape = info.GetShape();
    type = info.GetElementType();
    data = value.GetTensorRawData();
    size = product(shape);
  }

  template <class T>
  const T* as() const {
    return static_cast<const T*>(data);
  }
};

// An input that is a constant of the file, where it is one; else null.
inline Ort::ConstValue constant_input(const OrtKernelInfo* info, size_t index) {
  int constant = 0;
  const auto value = Ort::ConstKernelInfo(info).GetTensorConstantInput(index, &constant);
  return constant ? value : Ort::ConstValue();
}

// An output of floats.
inline float* float_output(const Ort::KernelContext& context, size_t index, const Shape& shape) {
  return context.GetOutput(index, shape).GetTensorMutableData<float>();
}

// The shape (N, C, ...) of one time step of an input (T, N, C, ...).
inline Shape plane_of(const Shape& shape, const char* what = "the input needs") {
  if (shape.size() < 3) throw CallError(what, " the axes (T, N, C, ...), got ", shape);
  return {shape.begin() + 1, shape.end()};
}

// One integer weight of a tensor of int4, int8 or int16.
inline int32_t integer_weight(const Input& weight, int64_t index,
                              const char* allowed = "int4, int8 or int16") {
  switch (weight.type) {
    case ONNX_TENSOR_ELEMENT_DATA_TYPE_INT8:
      return weight.as<int8_t>()[index];
    case ONNX_TENSOR_ELEMENT_DATA_TYPE_INT16:
      return weight.as<int16_t>()[index];
    case ONNX_TENSOR_ELEMENT_DATA_TYPE_INT4: {
      const uint8_t pair = weight.as<uint8_t>()[index / 2];  // the low half is the first weight
      const int half = index % 2 ? pair >> 4 : pair & 15;
      return half < 8 ? half : half - 16;
    }
    default:
      throw CallError("weights must be ", allowed);
  }
}

// The weight scales of a synapse: one number, or one for each output.
struct WeightScale {
  const float* values;
  bool shared;  // one for all outputs

  SYNAPSE_INLINE float operator[](int64_t output) const { return values[shared ? 0 : output]; }
  // The scales of the outputs from `first` on.
  WeightScale from(int64_t first) const { return {values + (shared ? 0 : first), shared}; }
};

// Reads an input of scales for `count` outputs, and throws where there are neither one nor as many.
inline WeightScale weight_scale(const Input& scale, int64_t count, const char* of) {
  if (scale.size != 1 && scale.size != count)
    throw CallError("a step of shape ", scale.shape, " is neither one nor one for ", count, " ",
                    of);
  return {scale.as<float>(), scale.size == 1};
}

// Runs work(begin, end) over [0, total) on ONNX Runtime's threads, in pieces of at least `least`.
template <class Work>
void parallel(const Ort::KernelContext& context, int64_t total, int64_t least, const Work& work) {
  if (total <= 0) return;
  constexpr int64_t kPieces = 16;
  if (least < 1) least = 1;
  int64_t pieces = (total + least - 1) / least;
  if (pieces > kPieces) pieces = kPieces;
  if (pieces <= 1) {
    work(int64_t{0}, total);
    return;
  }
  struct Shared {
    const Work& work;
    int64_t total, pieces;
  } shared{work, total, pieces};
  context.ParallelFor(
      [](void* data, size_t index) {
        const Shared& s = *static_cast<const Shared*>(data);
        const int64_t i = static_cast<int64_t>(index);
        s.work(s.total * i / s.pieces, s.total * (i + 1) / s.pieces);
      },
      static_cast<size_t>(pieces), 0, &shared);
}

// Runs work(first, count) for blocks of up to `size` of the neurons, each through all time steps.
template <class Work>
void parallel_blocks(const Ort::KernelContext& context, int64_t neurons, int64_t size,
                     int64_t steps, const Work& work) {
  // waking a thread pays from a few microseconds of work
  const int64_t least = (1 << 14) / (size * std::max<int64_t>(steps, 1)) + 1;
  parallel(context, (neurons + size - 1) / size, least, [&](int64_t from, int64_t to) {
    for (int64_t first = from * size; first < std::min(to * size, neurons); first += size)
      work(first, std::min(size, neurons - first));
  });
}

// An operator of ONNX Runtime from two tensors of floats to one, which a kernel calls for inputs
// that are no integers.
class FloatOperator {
 public:
  struct Tensor {
    const float* data;
    Shape shape;
  };

  FloatOperator(const OrtKernelInfo* info, const char* name, int version,
                const std::vector<Ort::OpAttr>& attributes) {
    const char* type_names[] = {"T"};
    op_ = Ort::Op::Create(info, name, "", version, type_names, &kFloat, 1, attributes.data(),
                          attributes.size(), 2, 1);
  }

  void run(const Ort::KernelContext& context, Tensor a, Tensor b, float* y, Shape shape) const {
    const auto memory = Ort::MemoryInfo::CreateCpu(OrtArenaAllocator, OrtMemTypeDefault);
    const auto value = [&](const Tensor& t) {
      return Ort::Value::CreateTensor<float>(memory, const_cast<float*>(t.data), product(t.shape),
                                             t.shape.data(), t.shape.size());
    };
    const Ort::Value left = value(a), right = value(b);
    Ort::Value result = value({y, std::move(shape)});
    const OrtValue* in[] = {left, right};
    OrtValue* out[] = {result};
    op_.Invoke(context.GetOrtKernelContext(), in, 2, out, 1);
  }

 private:
  mutable Ort::Op op_{nullptr};  // the wrapper's Invoke is not const
};

}  // namespace synapse
