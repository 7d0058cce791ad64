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

namespace {

// A library of kernels for CUDA also brings the same device code for the processor, where its
// blocks and threads are taken one after the other: a session asks for it by this entry.
constexpr const char* kEmulate = "ai.synapse.emulate_cuda";

bool emulated(const OrtCustomOp* op) {
  const char* provider = op->GetExecutionProviderType(op);
  return provider != nullptr && std::string(provider) == "CPUExecutionProvider";
}

Ort::CustomOpDomain domain_of(bool emulation) {
  Ort::CustomOpDomain made("ai.synapse");
  for (const auto& entry : registered())
    if (emulated(entry.op) == emulation) made.Add(entry.op);
  return made;
}

}  // namespace

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
    // sessions refer to the domains for as long as they live
    static const Ort::CustomOpDomain domains[] = {synapse::domain_of(false),
                                                  synapse::domain_of(true)};
    Ort::UnownedSessionOptions of(options);
    of.Add(domains[of.GetConfigEntryOrDefault(synapse::kEmulate, "0") == "1"]);
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
    if (entry.together != together || synapse::emulated(entry.op)) continue;
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
#if defined(SYNAPSE_CUDA)
  return SYNAPSE_CUDA;
#else
  const int level = synapse::instruction_level();
  return level >= 4 ? "avx512" : level >= 3 ? "avx2" : "baseline";
#endif
}
