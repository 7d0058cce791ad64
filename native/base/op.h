// Ops as ONNX Runtime sees them: their declaration, their registration, and their output shapes.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "base/call.h"
#include "base/window.h"

namespace synapse {

// Shape inference, called when a session is created. Every op infers its output shapes, because
// ONNX Runtime refuses a Loop or Scan that follows where the shapes of its states are unknown. Two
// properties of ONNX Runtime shape this class:
//  - The wrapper of its C++ headers (1.21) writes -2 for a symbolic size, which 1.32 refuses. So
//    sizes and names are read and written through the C interface.
//  - 1.32 reads an open size without a name as the size -1. So open sizes always get a name.
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

  // Gives an output the shape of the image that a kernel (O, C / groups, h, w[, 1]), or transposed
  // (C, O / groups, h, w[, 1]), makes of an input ([T,] N, C, H, W). A pool's kernel
  // (1, 1, h, w, 1) keeps the channels.
  void image(int input, int weight, int output, bool transposed) const {
    Sizes sizes(api_, info(input));
    const Sizes kernel(api_, info(weight));
    const size_t axes = sizes.value.size(), taps = kernel.value.size();
    if ((axes != 4 && axes != 5) || (taps != 4 && taps != 5)) return;
    Ort::ShapeInferContext attributes(&api_, context_);
    const auto strides = attributes.GetAttrInts("strides"), pads = attributes.GetAttrInts("pads"),
               dilations = attributes.GetAttrInts("dilations");
    if (strides.size() != 2 || pads.size() != 4 || dilations.size() != 2) return;
    const size_t channels = axes - 3;
    if (taps == 4 || !(kernel.value[0] == 1 && kernel.value[1] == 1)) {
      const int64_t outputs = kernel.value[transposed ? 1 : 0];
      const int64_t groups = transposed ? attributes.GetAttrInt("group") : 1;
      sizes.value[channels] = outputs < 0 ? -1 : outputs * groups;
      sizes.name[channels] = outputs < 0 && groups == 1 ? kernel.name[transposed ? 1 : 0] : "";
    }
    for (size_t i = 0; i < 2; i++) {
      int64_t &size = sizes.value[channels + 1 + i], window = kernel.value[2 + i];
      const bool known = size >= 0 && window >= 0 && strides[i] >= 1;
      size = known ? output_size(size, pads[i] + pads[2 + i], window, strides[i], dilations[i],
                                 transposed)
                   : -1;
      sizes.name[channels + 1 + i].clear();
    }
    sizes.type = kFloat;
    set(output, sizes);
  }

  // Gives an output the shape of an input, except for the last size, which is the size of the input
  // `weight` along an axis. With `time_last` the last axis of the input becomes the first of the
  // output.
  void replace_last(int input, int weight, int output, bool time_last, size_t axis = 0) const {
    Sizes sizes(api_, info(input));
    const Sizes other(api_, info(weight));
    if (sizes.value.empty() || other.value.size() <= axis) return;
    if (time_last) {
      std::rotate(sizes.value.begin(), sizes.value.end() - 1, sizes.value.end());
      std::rotate(sizes.name.begin(), sizes.name.end() - 1, sizes.name.end());
    }
    sizes.value.back() = other.value[axis];
    sizes.name.back() = other.name[axis];
    sizes.type = kFloat;
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
    Ort::ThrowOnError(api_.ShapeInferContext_GetInputTypeShape(context_, input, &info));
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
    Ort::ThrowOnError(api_.ShapeInferContext_SetOutputTypeShape(context_, output, info));
  }

  const OrtApi& api_;
  OrtShapeInferContext* context_;
};

// Exceptions of `function` as ONNX Runtime's status: none may cross its C interface.
template <class Function>
OrtStatusPtr guarded(const std::string& op, const Function& function) {
  try {
    function();
    return nullptr;
  } catch (const std::exception& error) {
    const std::string message = "ai.synapse::" + op + ": " + error.what();
    return Ort::GetApi().CreateStatus(ORT_INVALID_ARGUMENT, message.c_str());
  }
}

// The kernel of a node, made from its attributes and constant inputs.
class Kernel {
 public:
  std::string op;  // its name

  virtual ~Kernel() = default;
  virtual void compute(const Ort::KernelContext& context) const = 0;

  OrtStatusPtr ComputeV2(OrtKernelContext* context) const {
    return guarded(op, [&] { compute(Ort::KernelContext(context)); });
  }
};

template <class K>
std::unique_ptr<Kernel> make_kernel(const OrtKernelInfo* info) {
  return std::make_unique<K>(info);
}

// The type and the shape of output k are those of input inputs[k].
inline std::function<void(const ShapeInference&)> copies(std::vector<int> inputs) {
  return [=](const ShapeInference& shapes) {
    for (size_t k = 0; k < inputs.size(); k++) shapes.copy(inputs[k], static_cast<int>(k));
  };
}

using Types = std::vector<ONNXTensorElementDataType>;
constexpr ONNXTensorElementDataType kAny = ONNX_TENSOR_ELEMENT_DATA_TYPE_UNDEFINED;

// What an op declares.
struct Declaration {
  std::string name;
  Types inputs, outputs;  // kAny for an input of several types, which the kernel checks
  std::function<void(const ShapeInference&)> infer;
  std::function<std::unique_ptr<Kernel>(const OrtKernelInfo*)> make;
  const char* provider = nullptr;                // ONNX Runtime's default, the processor
  OrtMemType memory_of_any = OrtMemTypeDefault;  // where inputs of the type kAny are
  bool fused = false;     // computes two nodes of a file at once; no file contains such an op
  bool variadic = false;  // its only input and output stand for any number, of any types
};

class Op : public Ort::CustomOpBase<Op, Kernel, true> {
 public:
  const Declaration declaration;

  explicit Op(Declaration declared) : declaration(std::move(declared)) {
    OrtCustomOp::InferOutputShapeFn = [](const OrtCustomOp* self, OrtShapeInferContext* context) {
      const Declaration& op = static_cast<const Op*>(self)->declaration;
      return guarded(op.name, [&] { op.infer(ShapeInference(context)); });
    };
  }

  const char* GetName() const { return declaration.name.c_str(); }
  const char* GetExecutionProviderType() const { return declaration.provider; }
  size_t GetInputTypeCount() const { return declaration.inputs.size(); }
  size_t GetOutputTypeCount() const { return declaration.outputs.size(); }
  ONNXTensorElementDataType GetInputType(size_t i) const { return declaration.inputs[i]; }
  ONNXTensorElementDataType GetOutputType(size_t i) const { return declaration.outputs[i]; }
  OrtCustomOpInputOutputCharacteristic GetInputCharacteristic(size_t) const {
    return declaration.variadic ? INPUT_OUTPUT_VARIADIC : INPUT_OUTPUT_REQUIRED;
  }
  OrtCustomOpInputOutputCharacteristic GetOutputCharacteristic(size_t i) const {
    return GetInputCharacteristic(i);
  }
  bool GetVariadicInputHomogeneity() const { return false; }
  bool GetVariadicOutputHomogeneity() const { return false; }
  OrtMemType GetInputMemoryType(size_t i) const {
    return declaration.inputs[i] == kAny ? declaration.memory_of_any : OrtMemTypeDefault;
  }

  OrtStatusPtr CreateKernelV2(const OrtApi&, const OrtKernelInfo* info, void** kernel) const {
    return guarded(declaration.name, [&] {
      auto made = declaration.make(info);
      made->op = declaration.name;
      *kernel = made.release();
    });
  }
};

// Every op of the library; filled while the library is loaded. Sessions keep references to them.
std::deque<Op>& registered();

// Registers an op. A file of native/ops declares it as a static object.
struct RegisterOp {
  RegisterOp(Declaration declaration) { registered().emplace_back(std::move(declaration)); }
};

// A synapse: its inputs are x, a weight for each part, a weight scale for each part and the bias if
// it has one, and it has one output for each part. A real synapse has one part, a complex one two:
// real and imaginary. `K` states its name, its parts and biases, the type of x, and its output
// shapes.
template <class K>
struct RegisterSynapse {
  RegisterSynapse() {
    Types inputs(1 + 2 * K::kParts + K::kBiases, kFloat);
    inputs[0] = K::kInput;
    std::fill_n(inputs.begin() + 1, K::kParts, kAny);
    RegisterOp({K::kName, inputs, Types(K::kParts, kFloat), K::infer, make_kernel<K>});
  }
};

}  // namespace synapse
