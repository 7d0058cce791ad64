// The kernel of a neuron for the CUDA execution provider, and where its grid runs: on a GPU, or on
// the processor, which takes its blocks and threads one after the other. The latter compares the
// device code with torch where there is no GPU, and is all that a compiler other than nvcc
// compiles.
#pragma once

#include <cstdint>
#include <memory>
#include <mutex>

#include "base/call.h"
#include "base/memory.h"
#include "cuda/sequence.h"
#include "neuron/node.h"

#if defined(__CUDACC__)
#include <cuda_runtime.h>
#endif

namespace synapse {

// The processor in place of the device. Every other phase takes its threads in reverse order, so
// that a result that depends on their order shows in the tests.
class EmulatedDevice {
 public:
  static constexpr const char* kProvider = "CPUExecutionProvider";
  static constexpr OrtMemType kWeightMemory = OrtMemTypeDefault;
  using Array = Matrix;

  explicit EmulatedDevice(const Ort::KernelContext&) {}

  template <class Work>
  void launch(const Work& work) const {
    const GridSize size = work.size();
    for (int64_t block = 0; block < size.blocks; block++)
      for (int64_t phase = 0; phase < work.phases(); phase++)
        for (int i = 0; i < size.threads; i++)
          work(phase, block, phase % 2 ? size.threads - 1 - i : i, size.threads);
  }

  Array place(const Array& values) const { return values; }
};

#if defined(__CUDACC__)
template <class Work>
__global__ void __launch_bounds__(Work::kThreads, 1) grid(const __grid_constant__ Work work) {
  const int64_t phases = work.phases();
  for (int64_t phase = 0; phase < phases; phase++) {
    if (phase > 0) __syncthreads();
    work(phase, blockIdx.x, static_cast<int>(threadIdx.x), static_cast<int>(blockDim.x));
  }
}

inline void check(cudaError_t error, const char* what) {
  if (error != cudaSuccess)
    throw CallError("CUDA failed to ", what, ": ", cudaGetErrorString(error));
}

// Numbers in the memory of the device.
class DeviceArray {
 public:
  DeviceArray(const AlignedVector<float>& values, cudaStream_t stream) {
    if (values.size() == 0) return;
    const size_t bytes = values.size() * sizeof(float);
    check(cudaMalloc(&data_, bytes), "take memory");
    cudaError_t error =
        cudaMemcpyAsync(data_, values.data(), bytes, cudaMemcpyHostToDevice, stream);
    if (error == cudaSuccess) error = cudaStreamSynchronize(stream);
    if (error != cudaSuccess) cudaFree(data_);
    check(error, "copy the weights of the feedback");
  }
  DeviceArray(const DeviceArray&) = delete;
  ~DeviceArray() { cudaFree(data_); }  // waits for kernels that still read the memory
  const float* data() const { return static_cast<const float*>(data_); }

 private:
  void* data_ = nullptr;
};

// The device that holds the arguments of a call, and ONNX Runtime's stream on it.
class CudaDevice {
 public:
  static constexpr const char* kProvider = "CUDAExecutionProvider";
  static constexpr OrtMemType kWeightMemory = OrtMemTypeCPUInput;
  using Array = std::shared_ptr<const DeviceArray>;

  explicit CudaDevice(const Ort::KernelContext& context)
      : stream_(static_cast<cudaStream_t>(context.GetGPUComputeStream())) {
    const auto memory = context.GetInput(0).GetTensorMemoryInfo();
    if (memory.GetDeviceType() != OrtMemoryInfoDeviceType_GPU)
      throw CallError("the arguments are not in a GPU's memory");
    check(cudaSetDevice(memory.GetDeviceId()), "choose the device");
  }

  template <class Work>
  void launch(const Work& work) const {
    const GridSize size = work.size();
    if (size.blocks == 0 || size.threads == 0) return;
    if (size.blocks > INT32_MAX)
      throw CallError("a GPU takes no more than ", INT32_MAX, " blocks of neurons, got ",
                      size.blocks);
    grid<<<static_cast<unsigned>(size.blocks), static_cast<unsigned>(size.threads), 0, stream_>>>(
        work);
    check(cudaGetLastError(), "start the kernel");
  }

  Array place(const Matrix& values) const {
    return std::make_shared<const DeviceArray>(*values, stream_);
  }

 private:
  cudaStream_t stream_;
};
#endif

// `Device` is CudaDevice or EmulatedDevice.
template <class E, Regime regime, Kind kind, class Device>
class GridKernel : public NeuronNode<E, regime, kind> {
 public:
  using Node = NeuronNode<E, regime, kind>;
  static constexpr const char* kProvider = Device::kProvider;
  static constexpr OrtMemType kWeightMemory = Device::kWeightMemory;

  explicit GridKernel(const OrtKernelInfo* info) : Node(info) {}

  void compute(const Ort::KernelContext& context) const override {
    const Device device(context);
    const NeuronArguments<E> args = this->read_arguments(context);
    if constexpr (Node::kRecurrent) {
      run_recurrent(device, args, this->read_feedback(context, args));
    } else {
      device.launch(Sequence<E, regime, kind>{args});
    }
  }

 private:
  using Array = typename Device::Array;

  void run_recurrent(const Device& device, const NeuronArguments<E>& args,
                     const Feedback<E>& feedback) const {
    RecurrentSequence<E, regime> work{};
    work.args = args;
    work.spikes = feedback.spikes;
    work.last_spikes = feedback.last_spikes;
    Array arrays[E::currents];  // must live until the launch; freeing them waits for the kernel
    for (int k = 0; k < E::currents; k++) {
      arrays[k] = device_matrix(device, k, feedback.matrix[k]);
      work.matrix[k] = arrays[k]->data();
      work.scale[k] = feedback.scale[k];
    }
    device.launch(work);
  }

  // A matrix in the memory of the device. Constant weights are copied there once.
  Array device_matrix(const Device& device, int k, const Matrix& matrix) const {
    if (!this->has_constant_matrix(k)) return device.place(matrix);
    const std::lock_guard<std::mutex> lock(mutex_);
    if (!device_matrix_[k]) device_matrix_[k] = device.place(matrix);
    return device_matrix_[k];
  }

  mutable std::mutex mutex_;
  mutable Array device_matrix_[E::currents];
};

}  // namespace synapse
