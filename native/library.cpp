// The functions that the library exports: RegisterCustomOps hands every registered op to ONNX
// Runtime, the others describe the library.
#include <deque>
#include <string>

#include "base/compiler.h"
#include "base/op.h"

namespace synapse {

std::deque<Op>& registered() {
  static std::deque<Op> all;
  return all;
}

namespace {

// The library for CUDA also has kernels that run the same device code on the processor. A session
// with this configuration entry gets those instead.
constexpr const char* kEmulate = "ai.synapse.emulate_cuda";

bool emulated(const Op& op) {
  const char* provider = op.declaration.provider;
  return provider != nullptr && std::string(provider) == "CPUExecutionProvider";
}

Ort::CustomOpDomain domain_of(bool emulation) {
  Ort::CustomOpDomain domain("ai.synapse");
  for (const Op& op : registered())
    if (emulated(op) == emulation) domain.Add(&op);
  return domain;
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
    // sessions keep references to the domains
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

// The names of the ops, separated by commas. An op with a kernel for each of several types is named
// once. ElementwiseScan is none of them: it is in no file, and joins no two nodes of one.
static std::string names_of(bool fused) {
  std::string joined;
  for (const synapse::Op& op : synapse::registered()) {
    const std::string& name = op.declaration.name;
    if (op.declaration.fused != fused || op.declaration.variadic || synapse::emulated(op)) continue;
    if (("," + joined + ",").find("," + name + ",") == std::string::npos)
      joined += (joined.empty() ? "" : ",") + name;
  }
  return joined;
}

SYNAPSE_EXPORT const char* synapse_onnx_kernels() {
  static const std::string names = names_of(false);
  return names.c_str();
}

// The fused ops, which no file has. The name joins those of the two nodes by "And".
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
