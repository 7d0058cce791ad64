// Shape inference of custom ops, called when a session is created.
//
// Every op infers its output shapes, because ONNX Runtime refuses a Loop or Scan that follows where
// the shapes of its states are unknown. Two properties of ONNX Runtime shape this file:
//  - The wrapper of its C++ headers (1.21) writes -2 for a symbolic size, which 1.32 refuses. So
//    sizes and names are read and written through the C interface.
//  - 1.32 reads an open size without a name as the size -1. So open sizes always get a name.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <string>
#include <vector>

#include "base/onnxruntime.h"
#include "base/window.h"

namespace synapse {

class ShapeInference {
 public:
  explicit ShapeInference(OrtShapeInferContext* context) : api_(Ort::GetApi()), context_(context) {}

  // The value of an attribute that is 0 or 1; 0 where the node does not have it.
  bool flag(const char* name) const {
    const OrtOpAttr* attribute = nullptr;
    const Ort::Status absent(api_.ShapeInferContext_GetAttribute(context_, name, &attribute));
    if (!absent.IsOK() || attribute == nullptr) return false;
    int64_t value = 0;
    size_t size = 0;
    Ort::ThrowOnError(api_.ReadOpAttr(attribute, ORT_OP_ATTR_INT, &value, sizeof value, &size));
    return value != 0;
  }

  // Gives an output the type and the shape of an input.
  void copy(int input, int output) const { set(output, Sizes(api_, info(input))); }

  // Gives an output the shape of the image that a kernel (O, C / groups, h, w, 1), or transposed
  // (C, O / groups, h, w, 1), makes of an input (T, N, C, H, W). A pool's kernel (1, 1, h, w, 1)
  // keeps the channels.
  void image(int input, int weight, int output, bool transposed) const {
    Sizes sizes(api_, info(input));
    const Sizes kernel(api_, info(weight));
    if (sizes.value.size() != 5 || kernel.value.size() != 5) return;
    Ort::ShapeInferContext attributes(&api_, context_);
    const auto strides = attributes.GetAttrInts("strides"), pads = attributes.GetAttrInts("pads"),
               dilations = attributes.GetAttrInts("dilations");
    if (strides.size() != 2 || pads.size() != 4 || dilations.size() != 2) return;
    if (!(kernel.value[0] == 1 && kernel.value[1] == 1)) {
      const int64_t outputs = kernel.value[transposed ? 1 : 0];
      const int64_t groups = transposed ? attributes.GetAttrInt("group") : 1;
      sizes.value[2] = outputs < 0 ? -1 : outputs * groups;
      sizes.name[2] = outputs < 0 && groups == 1 ? kernel.name[transposed ? 1 : 0] : "";
    }
    for (size_t i = 0; i < 2; i++) {
      int64_t& size = sizes.value[3 + i];
      sizes.name[3 + i].clear();
      if (size < 0 || kernel.value[2 + i] < 0) {
        size = -1;
        continue;
      }
      size = strides[i] < 1 ? -1
                            : output_size(size, pads[i] + pads[2 + i], kernel.value[2 + i],
                                          strides[i], dilations[i], transposed);
    }
    sizes.type = ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT;
    set(output, sizes);
  }

  // Gives an output the shape of an input, except for the last size, which is the first size of the
  // input `weight`. With `time_last` the last axis of the input becomes the first of the output.
  void replace_last(int input, int weight, int output, bool time_last) const {
    Sizes sizes(api_, info(input));
    const Sizes other(api_, info(weight));
    if (sizes.value.empty() || other.value.empty()) return;
    if (time_last) {
      std::rotate(sizes.value.begin(), sizes.value.end() - 1, sizes.value.end());
      std::rotate(sizes.name.begin(), sizes.name.end() - 1, sizes.name.end());
    }
    sizes.value.back() = other.value[0];
    sizes.name.back() = other.name[0];
    sizes.type = ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT;
    set(output, sizes);
  }

 private:
  struct Sizes {
    std::vector<int64_t> value;     // -1 for an open size
    std::vector<std::string> name;  // of an open size; may be empty
    ONNXTensorElementDataType type;

    Sizes(const OrtApi& api, const OrtTensorTypeAndShapeInfo* info) {
      size_t axes = 0;
      Ort::ThrowOnError(api.GetDimensionsCount(info, &axes));
      value.resize(axes);
      std::vector<const char*> names(axes, "");
      Ort::ThrowOnError(api.GetDimensions(info, value.data(), axes));
      Ort::ThrowOnError(api.GetSymbolicDimensions(info, names.data(), axes));
      Ort::ThrowOnError(api.GetTensorElementType(info, &type));
      name.assign(names.begin(), names.end());
    }
  };

  const OrtTensorTypeAndShapeInfo* info(int input) const {
    OrtTensorTypeAndShapeInfo* info = nullptr;  // owned by the context
    Ort::ThrowOnError(
        api_.ShapeInferContext_GetInputTypeShape(context_, static_cast<size_t>(input), &info));
    return info;
  }

  void set(int output, const Sizes& sizes) const {
    const size_t axes = sizes.value.size();
    if (axes == 0) return;  // the input's shape is unknown
    static std::atomic<uint64_t> count{0};
    std::vector<std::string> names = sizes.name;
    std::vector<const char*> pointers(axes);
    for (size_t i = 0; i < axes; i++) {
      if (sizes.value[i] < 0 && names[i].empty())
        names[i] = "ai.synapse.size." + std::to_string(count++);
      pointers[i] = names[i].c_str();
    }
    OrtTensorTypeAndShapeInfo* info = nullptr;
    Ort::ThrowOnError(api_.CreateTensorTypeAndShapeInfo(&info));
    const Ort::TensorTypeAndShapeInfo owner(info);
    Ort::ThrowOnError(api_.SetTensorElementType(info, sizes.type));
    Ort::ThrowOnError(api_.SetDimensions(info, sizes.value.data(), axes));
    Ort::ThrowOnError(api_.SetSymbolicDimensions(info, pointers.data(), axes));
    Ort::ThrowOnError(
        api_.ShapeInferContext_SetOutputTypeShape(context_, static_cast<size_t>(output), info));
  }

  const OrtApi& api_;
  OrtShapeInferContext* context_;
};

}  // namespace synapse
