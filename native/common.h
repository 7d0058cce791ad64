// What every kernel shares: registration, tensors of a call, errors, work in parallel.
#pragma once

#define ORT_API_MANUAL_INIT
#include <onnxruntime_cxx_api.h>
#undef ORT_API_MANUAL_INIT

#include <algorithm>
#include <array>
#include <atomic>
#include <cstdint>
#include <exception>
#include <memory>
#include <mutex>
#include <stdexcept>
#include <string>
#include <vector>

// Functions with this are compiled for several instruction sets; the loader takes the best that
// the processor has. Where the compiler cannot, the baseline is all there is.
#if defined(__x86_64__) && defined(__linux__) && defined(__GLIBC__) && defined(__GNUC__) && \
    !defined(__clang__) && !defined(__CUDACC__) && !defined(SYNAPSE_NO_CLONES) &&           \
    !defined(SYNAPSE_ONE_INSTRUCTION_SET)
#if __GNUC__ >= 12
#define SYNAPSE_CLONES __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#endif
#endif
#ifndef SYNAPSE_CLONES
#define SYNAPSE_CLONES
#endif

// x86 with a compiler that takes the instruction set of a function from an attribute
#if (defined(__x86_64__) || defined(__i386__)) && defined(__GNUC__) && !defined(__CUDACC__) && \
    !defined(SYNAPSE_ONE_INSTRUCTION_SET)
#define SYNAPSE_X86
#if defined(SYNAPSE_EMULATE_AVX512)
#include "emulated.h"
#else
#include <immintrin.h>
#define SYNAPSE_TARGET(instructions) __attribute__((target(instructions)))
#endif
#endif

// What nvcc compiles with this is compiled for the GPU and for the processor, from one source.
#if defined(__CUDACC__)
#define SYNAPSE_INLINE __host__ __device__ __forceinline__
#define SYNAPSE_LAMBDA
#elif defined(__GNUC__)
#define SYNAPSE_INLINE inline __attribute__((always_inline))
#define SYNAPSE_LAMBDA __attribute__((always_inline))
#else
#define SYNAPSE_INLINE inline
#define SYNAPSE_LAMBDA
#endif

#if defined(__GNUC__) && !defined(__clang__) && !defined(__CUDACC__)
#define SYNAPSE_INDEPENDENT _Pragma("GCC ivdep")
#elif defined(__clang__)
#define SYNAPSE_INDEPENDENT _Pragma("clang loop vectorize(assume_safety)")
#else
#define SYNAPSE_INDEPENDENT
#endif

namespace synapse {

// The vector instructions of this processor: 4 for AVX-512 (x86-64-v4), 3 for AVX2 (x86-64-v3).
inline int instruction_level() {
#if defined(SYNAPSE_EMULATE_AVX512)
  return 4;
#elif defined(SYNAPSE_X86)
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl"))
    return 4;
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) return 3;
#endif
  return 0;
}

struct Registered {
  const OrtCustomOp* op;
  const char* name;
  bool together = false;  // computes several nodes of a file, and stands in none
};

// Every kernel of the library; filled while it is loaded.
std::vector<Registered>& registered();

// A file declares its kernels as static objects of this type.
struct Register {
  Register(const OrtCustomOp& op, const char* name) { registered().push_back({&op, name}); }
};

// What a kernel throws on a call that it cannot compute; ONNX Runtime reports the sentence.
class CallError : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

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

template <class T>
constexpr ONNXTensorElementDataType element_type();
template <>
constexpr ONNXTensorElementDataType element_type<float>() {
  return ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT;
}
template <>
constexpr ONNXTensorElementDataType element_type<int64_t>() {
  return ONNX_TENSOR_ELEMENT_DATA_TYPE_INT64;
}

// How many outputs an axis has: how often a kernel fits along it, or, transposed, how far the
// kernels of all its inputs reach. Negative where there is none.
inline int64_t places_along(int64_t size, int64_t pads, int64_t kernel, int64_t stride,
                            int64_t dilation, bool transposed) {
  const int64_t reach = dilation * (kernel - 1) + 1;
  if (transposed) {
    const int64_t places = (size - 1) * stride + reach - pads;
    return places < 1 ? -1 : places;
  }
  const int64_t left = size + pads - reach;
  return left < 0 ? -1 : left / stride + 1;
}

// Strides, pads and dilations of images, as a node has them; none divides by zero.
struct Placing {
  std::vector<int64_t> strides, pads, dilations;

  explicit Placing(const Ort::ConstKernelInfo& info)
      : strides(info.GetAttributes<int64_t>("strides")),
        pads(info.GetAttributes<int64_t>("pads")),
        dilations(info.GetAttributes<int64_t>("dilations")) {
    const auto least = [](const std::vector<int64_t>& values, int64_t bound) {
      for (const int64_t value : values)
        if (value < bound || value > INT32_MAX) return false;
      return true;
    };
    if (strides.size() != 2 || pads.size() != 4 || dilations.size() != 2)
      throw CallError("needs two strides, four pads and two dilations");
    if (!least(strides, 1) || !least(pads, 0) || !least(dilations, 1))
      throw CallError("strides and dilations must be at least 1, and pads at least 0");
  }

  // Height and width of what a kernel (.., .., h, w, 1) makes of images (T, N, C, H, W).
  std::array<int64_t, 2> image(const std::vector<int64_t>& images,
                               const std::vector<int64_t>& kernel, bool transposed) const {
    std::array<int64_t, 2> out{};
    for (size_t i = 0; i < 2; i++) {
      out[i] = places_along(images[3 + i], pads[i] + pads[2 + i], kernel[2 + i], strides[i],
                            dilations[i], transposed);
      if (out[i] < 0)
        throw CallError(
            "an image of " + text(images) +
            (transposed ? " has no output within the pads" : " is smaller than the kernel"));
      if (out[i] > INT32_MAX || images[3 + i] > INT32_MAX)
        throw CallError("an image of " + text(images) + " is too large");
    }
    return out;
  }
};

// An attribute of 0 or 1; a node without it has 0.
inline bool flag(const Ort::ConstKernelInfo& info, const char* name) {
  int64_t value = 0;
  Ort::Status(
      Ort::GetApi().KernelInfoGetAttribute_int64(info, name, &value));  // absent is an error
  return value != 0;
}

// An input: shape and data.
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

// An integer weight as it is in the file, of 4, 8 or 16 bits.
inline int32_t integer_weight(const Input& weight, int64_t index,
                              const char* allowed = "int4, int8 or int16") {
  switch (weight.type) {
    case ONNX_TENSOR_ELEMENT_DATA_TYPE_INT8:
      return weight.as<int8_t>()[index];
    case ONNX_TENSOR_ELEMENT_DATA_TYPE_INT16:
      return weight.as<int16_t>()[index];
    case ONNX_TENSOR_ELEMENT_DATA_TYPE_INT4: {
      const uint8_t pair = weight.as<uint8_t>()[index / 2];  // the first is the low half
      const int half = index % 2 ? pair >> 4 : pair & 15;
      return half < 8 ? half : half - 16;
    }
    default:
      throw CallError(std::string("weights must be ") + allowed);
  }
}

// Refuse a step that is neither one number nor one for each of `count`.
inline void check_step(const Input& step, int64_t count, const char* of) {
  if (step.size != 1 && step.size != count)
    throw CallError("a step of shape " + text(step.shape) + " is neither one nor one for " +
                    std::to_string(count) + " " + of);
}

// Shapes that are known when a session is made. Nodes behind a kernel need them: a loop is refused
// where the shapes of its states are not known. (The wrapper of the C++ headers is not used: it
// writes -2 for a symbolic size, which newer versions of ONNX Runtime refuse.)
class Shapes {
 public:
  explicit Shapes(OrtShapeInferContext* context) : api_(Ort::GetApi()), context_(context) {}

  // An attribute of 0 or 1; a node without it has 0.
  bool flag(const char* name) const {
    const OrtOpAttr* attribute = nullptr;
    const Ort::Status absent(api_.ShapeInferContext_GetAttribute(context_, name, &attribute));
    if (!absent.IsOK() || attribute == nullptr) return false;
    int64_t value = 0;
    size_t size = 0;
    Ort::ThrowOnError(api_.ReadOpAttr(attribute, ORT_OP_ATTR_INT, &value, sizeof value, &size));
    return value != 0;
  }

  // Say that an output has the type and the shape of an input.
  void copy(int input, int output) const { set(output, Sizes(api_, of(input))); }

  // Say that an output is the image that a kernel (O, C / groups, h, w, 1), or transposed
  // (C, O / groups, h, w, 1), makes of an input (T, N, C, H, W); one of a single channel makes as
  // many as there are.
  void image(int input, int weight, int output, bool transposed) const {
    Sizes sizes(api_, of(input));
    const Sizes kernel(api_, of(weight));
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
                            : places_along(size, pads[i] + pads[2 + i], kernel.value[2 + i],
                                           strides[i], dilations[i], transposed);
    }
    sizes.type = ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT;
    set(output, sizes);
  }

  // Say that an output is the input but for its last size, which is the first of another's. The
  // input has time first, or last, from where it goes to the front.
  void copy_but_last(int input, int sized, int output, bool time_last = false) const {
    Sizes sizes(api_, of(input));
    const Sizes other(api_, of(sized));
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
    std::vector<int64_t> value;
    std::vector<std::string> name;  // of a size that is open
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

  const OrtTensorTypeAndShapeInfo* of(int input) const {
    OrtTensorTypeAndShapeInfo* info = nullptr;  // the context keeps it
    Ort::ThrowOnError(
        api_.ShapeInferContext_GetInputTypeShape(context_, static_cast<size_t>(input), &info));
    return info;
  }

  void set(int output, const Sizes& sizes) const {
    const size_t axes = sizes.value.size();
    if (axes == 0) return;  // nothing is known
    // ONNX Runtime takes an open size without a name for one of -1: each gets a name of its own
    static std::atomic<uint64_t> count{0};
    std::vector<std::string> names = sizes.name;
    std::vector<const char*> pointers(axes);
    for (size_t i = 0; i < axes; i++) {
      if (sizes.value[i] < 0 && names[i].empty())
        names[i] = "ai.synapse.size." + std::to_string(count++);
      pointers[i] = names[i].c_str();
    }
    OrtTensorTypeAndShapeInfo* made = nullptr;
    Ort::ThrowOnError(api_.CreateTensorTypeAndShapeInfo(&made));
    const Ort::TensorTypeAndShapeInfo owner(made);
    Ort::ThrowOnError(api_.SetTensorElementType(made, sizes.type));
    Ort::ThrowOnError(api_.SetDimensions(made, sizes.value.data(), axes));
    Ort::ThrowOnError(api_.SetSymbolicDimensions(made, pointers.data(), axes));
    Ort::ThrowOnError(
        api_.ShapeInferContext_SetOutputTypeShape(context_, static_cast<size_t>(output), made));
  }

  const OrtApi& api_;
  OrtShapeInferContext* context_;
};

// Run work(begin, end) over [0, total), in pieces of at least `least`, on ONNX Runtime's threads.
template <class Work>
void parallel(const Ort::KernelContext& context, int64_t total, int64_t least, const Work& work) {
  if (total <= 0) return;
  constexpr int64_t kPieces = 16;
  if (least < 1) least = 1;
  int64_t pieces = (total + least - 1) / least;
  if (pieces > kPieces) pieces = kPieces;
  if (pieces <= 1) {
    work(int64_t{0}, total);
    return;
  }
  struct Shared {
    const Work& work;
    int64_t total, pieces;
  } shared{work, total, pieces};
  context.ParallelFor(
      [](void* data, size_t index) {
        const Shared& s = *static_cast<const Shared*>(data);
        const int64_t i = static_cast<int64_t>(index);
        s.work(s.total * i / s.pieces, s.total * (i + 1) / s.pieces);
      },
      static_cast<size_t>(pieces), 0, &shared);
}

// Scratch memory that calls and threads hand on to each other: memory that is fresh from the system
// costs more than most of the work that is done on it.
template <class T>
class Pool {
 public:
  struct GiveBack {
    Pool* pool;
    void operator()(T* scratch) const {
      const std::lock_guard<std::mutex> lock(pool->mutex_);
      pool->kept_.emplace_back(scratch);
    }
  };
  using Loan = std::unique_ptr<T, GiveBack>;

  // Scratch that fits, or else what `make` makes.
  template <class Fits, class Make>
  Loan borrow(const Fits& fits, const Make& make) {
    std::unique_ptr<T> scratch;
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      if (!kept_.empty()) {
        scratch = std::move(kept_.back());
        kept_.pop_back();
      }
    }
    if (!scratch || !fits(*scratch)) scratch = make();
    return Loan(scratch.release(), GiveBack{this});
  }

 private:
  std::mutex mutex_;
  std::vector<std::unique_ptr<T>> kept_;
};

// Turn what a function throws into ONNX Runtime's status: no exception may cross its C interface.
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
