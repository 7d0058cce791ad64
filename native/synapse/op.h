// The ops of synapses. Their inputs are x, a weight for each part and a weight scale for each part;
// they have one output for each part. A real synapse has one part, a complex one two: real and
// imaginary.
#pragma once

#include "base/op.h"

namespace synapse {

// `Kernel` states its name, its parts, whether x may have several types, and its output shapes.
template <class Kernel>
struct SynapseOp : CustomOp<SynapseOp<Kernel>, Kernel> {
  const char* GetName() const { return Kernel::kName; }
  size_t GetInputTypeCount() const { return 1 + 2 * Kernel::kParts; }
  size_t GetOutputTypeCount() const { return Kernel::kParts; }
  ONNXTensorElementDataType GetInputType(size_t i) const {
    // weights have several types, which the kernel checks
    const bool any = i == 0 ? Kernel::kAnyInput : i <= Kernel::kParts;
    return any ? ONNX_TENSOR_ELEMENT_DATA_TYPE_UNDEFINED : ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT;
  }
  ONNXTensorElementDataType GetOutputType(size_t) const {
    return ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT;
  }
  void infer(const ShapeInference& shapes) const { Kernel::infer(shapes); }
};

template <class Kernel>
struct RegisterSynapse {
  RegisterSynapse() {
    static const SynapseOp<Kernel> op;
    RegisterOp(op, Kernel::kName);
  }
};

}  // namespace synapse
