// The library's entry: gives ONNX Runtime every kernel that registered itself.
#include "common.h"

#if defined(_WIN32)
#define SYNAPSE_EXPORT extern "C" __declspec(dllexport)
#else
#define SYNAPSE_EXPORT extern "C" __attribute__((visibility("default")))
#endif

#ifndef SYNAPSE_ONNX_VERSION
#define SYNAPSE_ONNX_VERSION "unknown"
#endif

namespace synapse {

std::vector<Registered>& registered() {
  static std::vector<Registered> all;
  return all;
}

}  // namespace synapse

SYNAPSE_EXPORT OrtStatus* ORT_API_CALL RegisterCustomOps(OrtSessionOptions* options,
                                                         const OrtApiBase* base) {
  const OrtApi* api = base->GetApi(ORT_API_VERSION);
  if (api == nullptr) {
    const std::string message = std::string("the kernels of synapse-onnx need ONNX Runtime 1.") +
                                std::to_string(ORT_API_VERSION) + " or newer, and this is " +
                                base->GetVersionString();
    return base->GetApi(1)->CreateStatus(ORT_FAIL, message.c_str());
  }
  Ort::InitApi(api);
  try {
    // sessions refer to the domain for as long as they live
    static const Ort::CustomOpDomain domain = [] {
      Ort::CustomOpDomain made("ai.synapse");
      for (const auto& entry : synapse::registered()) made.Add(entry.op);
      return made;
    }();
    Ort::UnownedSessionOptions(options).Add(domain);
    return nullptr;
  } catch (const std::exception& error) {
    return api->CreateStatus(ORT_FAIL, error.what());
  }
}

SYNAPSE_EXPORT const char* synapse_onnx_version() { return SYNAPSE_ONNX_VERSION; }

SYNAPSE_EXPORT const char* synapse_onnx_kernels() {
  static const std::string names = [] {
    std::string joined;
    for (const auto& entry : synapse::registered()) {
      const std::string name = entry.name;
      // one op may have a kernel for each of several types
      if (("," + joined + ",").find("," + name + ",") == std::string::npos)
        joined += (joined.empty() ? "" : ",") + name;
    }
    return joined;
  }();
  return names.c_str();
}

SYNAPSE_EXPORT const char* synapse_onnx_instructions() {
  const int level = synapse::instruction_level();
  return level >= 4 ? "avx512" : level >= 3 ? "avx2" : "baseline";
}
