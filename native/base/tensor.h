// Tensors and attributes as kernels read them: shapes, inputs, integer weights.
//
// Inputs are positional. No kernel reads the name of an input.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/errors.h"
#include "base/onnxruntime.h"

namespace synapse {

inline std::string text(const std::vector<int64_t>& shape) {
  std::string out = "(";
  for (size_t i = 0; i < shape.size(); i++) out += (i ? ", " : "") + std::to_string(shape[i]);
  return out + ")";
}

inline int64_t product(const std::vector<int64_t>& shape, size_t from = 0) {
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

// The shape, type and data of an input.
struct Input {
  std::vector<int64_t> shape;
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
      throw CallError(std::string("weights must be ") + allowed);
  }
}

// Throws where a weight scale is neither one number nor one for each of `count` outputs.
inline void check_weight_scale(const Input& scale, int64_t count, const char* of) {
  if (scale.size != 1 && scale.size != count)
    throw CallError("a step of shape " + text(scale.shape) + " is neither one nor one for " +
                    std::to_string(count) + " " + of);
}

}  // namespace synapse
