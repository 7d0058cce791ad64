// Custom ops and their registration: a file of native/ops declares its kernels as static objects,
// and library.cpp hands all of them to ONNX Runtime.
#pragma once

#include <memory>
#include <vector>

#include "base/errors.h"
#include "base/onnxruntime.h"
#include "base/shape_inference.h"

namespace synapse {

struct RegisteredOp {
  const OrtCustomOp* op;
  const char* name;
  bool fused = false;  // computes two nodes of a file at once; no file contains such an op
};

// Every op of the library; filled while the library is loaded.
std::vector<RegisteredOp>& registered();

// The base of all ops. `Op` has a name, `GetName`, and infers its output shapes, `infer`; `Kernel`
// is made from the node's OrtKernelInfo.
template <class Op, class Kernel>
struct CustomOp : Ort::CustomOpBase<Op, Kernel, true> {
  CustomOp() {
    OrtCustomOp::InferOutputShapeFn = [](const OrtCustomOp* self, OrtShapeInferContext* context) {
      const Op& op = *static_cast<const Op*>(self);
      return guarded(op.GetName(), [&] { op.infer(ShapeInference(context)); });
    };
  }

  OrtStatusPtr CreateKernelV2(const OrtApi&, const OrtKernelInfo* info, void** kernel) const {
    const Op& op = *static_cast<const Op*>(this);
    return guarded(op.GetName(), [&] { *kernel = op.make(info).release(); });
  }

  std::unique_ptr<Kernel> make(const OrtKernelInfo* info) const {
    return std::make_unique<Kernel>(info);
  }
};

// Registers an op that a file declares as a static object.
struct RegisterOp {
  RegisterOp(const OrtCustomOp& op, const char* name) { registered().push_back({&op, name}); }
};

}  // namespace synapse
