// Errors of a call: kernels throw, ONNX Runtime receives a status with one sentence.
#pragma once

#include <exception>
#include <stdexcept>
#include <string>

#include "base/onnxruntime.h"

namespace synapse {

// A kernel throws this for a call that it cannot compute; ONNX Runtime reports the sentence.
class CallError : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

// Turns exceptions of `function` into ONNX Runtime's status: none may cross its C interface.
template <class Function>
OrtStatusPtr guarded(const char* name, const Function& function) {
  try {
    function();
    return nullptr;
  } catch (const std::exception& error) {
    const std::string message = std::string("ai.synapse::") + name + ": " + error.what();
    return Ort::GetApi().CreateStatus(ORT_INVALID_ARGUMENT, message.c_str());
  }
}

}  // namespace synapse
