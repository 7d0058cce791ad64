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

// Names of ops, with commas between; one op may have a kernel for each of several types.
static std::string names_of(bool together) {
  std::string joined;
  for (const auto& entry : synapse::registered()) {
    const std::string name = entry.name;
    if (entry.together != together) continue;
    if (("," + joined + ",").find("," + name + ",") == std::string::npos)
      joined += (joined.empty() ? "" : ",") + name;
  }
  return joined;
}

SYNAPSE_EXPORT const char* synapse_onnx_kernels() {
  static const std::string names = names_of(false);
  return names.c_str();
}

// Ops that no file has: each computes what two nodes of a file do, whose names are joined by "And".
SYNAPSE_EXPORT const char* synapse_onnx_together() {
  static const std::string names = names_of(true);
  return names.c_str();
}

SYNAPSE_EXPORT const char* synapse_onnx_instructions() {
  const int level = synapse::instruction_level();
  return level >= 4 ? "avx512" : level >= 3 ? "avx2" : "baseline";
}
