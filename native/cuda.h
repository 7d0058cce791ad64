// Neurons on a GPU: a whole sequence is one launch, a thread for every neuron.
//
// Each thread takes its neuron through all of time with the states in registers; neurons lie side
// by side in memory, so the threads of a warp read and write whole lines. With feedback a block of
// threads takes a sample, and waits for all its threads between two steps. The step is that of the
// equation, compiled for the device, in int64: the 32 bits of the processor's kernels multiply by
// way of doubles, of which most GPUs compute a sixty-fourth as many as integers.
//
// The same code runs on the processor, where the blocks and threads of a grid are taken one after
// the other (`Emulated`): that is how it is compared with torch where there is no GPU, and all that
// a compiler other than nvcc makes of this file.
#pragma once

#include <mutex>

#include "neuron.h"

#if defined(__CUDACC__)
#include <cuda_runtime.h>
#endif

namespace synapse {

constexpr int kAhead = 8;  // steps whose currents are read before the first of them is computed

// A grid computes `work(phase, block, thread, threads)` for every phase, block and thread. All
// threads of a block have ended a phase, and see what the others wrote, before one begins the next.
struct Size {
  int64_t blocks;
  int threads;  // of a block
};

// The states of a neuron and what its steps take, in registers.
template <class E, class A>
struct Lane {
  A a;
  typename A::V state[E::states], constant[E::constants + 1];
  typename A::Bias bias;
  typename A::F parameter[std::size(E::parameters)];

  SYNAPSE_INLINE Lane(const Job<E>& job, int64_t neuron, const void* const* states) {
    int32_t seen = 0;
    bool fits = true;
    a.scale = job.scale;
    each<std::size(E::parameters)>([&](auto k) SYNAPSE_LAMBDA {
      constexpr bool kept = E::parameters[decltype(k)::value].kept;
      const float value =
          value_for(job.parameter[k], job.parameter_size[k], job.sample, job.channels, neuron);
      parameter[k] = a.fraction(value, kept, fits);
    });
    bias = bias_for(job, a, neuron, seen);
    each<E::states>([&](auto k) SYNAPSE_LAMBDA {
      state[k] = a.start(static_cast<const typename A::Carried*>(states[k])[neuron], seen);
    });
    each<E::constants>([&](auto k) SYNAPSE_LAMBDA {
      if constexpr (std::is_same_v<A, Floating>) {
        constant[k] = a.constant(job.float_constant[k]);
      } else {
        constant[k] = a.constant(job.integer_constant[k]);
      }
    });
  }

  SYNAPSE_INLINE void store(const Job<E>& job, int64_t neuron) const {
    each<E::states>([&](auto k) SYNAPSE_LAMBDA {
      static_cast<typename A::Carried*>(job.last[k])[neuron] =
          static_cast<typename A::Carried>(state[k]);
    });
  }

  template <Kind kind>
  SYNAPSE_INLINE void step(const Job<E>& job, const float* x, int64_t at) {
    int32_t seen = 0;
    float out[kResults<E, kind>];
    advance<E, A, kind>(a, x, parameter, bias, state, constant, out, seen, job.graded);
    each<kResults<E, kind>>([&](auto k) SYNAPSE_LAMBDA { job.out[k][at] = out[k]; });
  }
};

// Spikes or traces: a thread a neuron, one phase.
template <class E, Regime regime, Kind kind>
struct Sequence {
  static constexpr int kThreads = 128;
  Job<E> job;

  Size size() const { return {(job.neurons + kThreads - 1) / kThreads, kThreads}; }
  SYNAPSE_INLINE int64_t phases() const { return 1; }

  SYNAPSE_INLINE void operator()(int64_t, int64_t block, int thread, int threads) const {
    const int64_t neuron = block * threads + thread;
    if (neuron >= job.neurons) return;
    Lane<E, Sure<regime>> lane(job, neuron, job.start);
    int64_t t = 0;
    for (; t + kAhead <= job.steps; t += kAhead) some<kAhead>(lane, t, neuron);
    for (; t < job.steps; t++) some<1>(lane, t, neuron);
    lane.store(job, neuron);
  }

 private:
  // Some steps: what memory takes for one current is then waited for once.
  template <int count>
  SYNAPSE_INLINE void some(Lane<E, Sure<regime>>& lane, int64_t t, int64_t neuron) const {
    float x[count][E::currents];
    each<count>([&](auto j) SYNAPSE_LAMBDA {
      each<E::currents>([&](auto k) SYNAPSE_LAMBDA {
        x[j][k] = job.x[k][(t + static_cast<int64_t>(j)) * job.neurons + neuron];
      });
    });
    each<count>([&](auto j) SYNAPSE_LAMBDA {
      lane.template step<kind>(job, x[j], (t + static_cast<int64_t>(j)) * job.neurons + neuron);
    });
  }
};

// Spikes with feedback: a block a sample, a phase a step. The states stay where the last ones are
// to be, so that a thread may take several neurons.
template <class E, Regime regime>
struct FedSequence {
  static constexpr int kThreads = 512;
  Job<E> job;
  const float* matrix[E::currents];  // (C, C), a row a spiking neuron
  const float* gain[E::currents];
  int64_t gains[E::currents];
  const float* spikes;
  float* last_spikes;

  Size size() const {
    const int64_t wanted = (job.channels + 31) / 32 * 32;
    return {job.channels ? job.neurons / job.channels : 0,
            static_cast<int>(std::min<int64_t>(wanted, kThreads))};
  }
  SYNAPSE_INLINE int64_t phases() const { return job.steps + 1; }

  SYNAPSE_INLINE void operator()(int64_t t, int64_t block, int thread, int threads) const {
    const int64_t first = block * job.channels;
    for (int64_t o = thread; o < job.channels; o += threads) {
      const int64_t neuron = first + o, at = (t - 1) * job.neurons + first;
      const float* before = t == 0 ? spikes + first : job.out[0] + at;
      if (t == job.steps) {  // the end
        last_spikes[neuron] = before[o];
        if (t == 0) Lane<E, Sure<regime>>(job, neuron, job.start).store(job, neuron);
        continue;
      }
      float x[E::currents];
      each<E::currents>([&](auto k) SYNAPSE_LAMBDA {
        const float sum = summed(before, matrix[k] + o);
        x[k] = job.x[k][t * job.neurons + neuron] + sum * gain[k][gains[k] == 1 ? 0 : o];
      });
      Lane<E, Sure<regime>> lane(job, neuron, t == 0 ? job.start : job.last);
      lane.template step<Kind::recurrent>(job, x, t * job.neurons + neuron);
      lane.store(job, neuron);
    }
  }

 private:
  // Sum over c of before[c] * column[c * C], in the order of the processor's kernel; what is silent
  // is not read.
  SYNAPSE_INLINE float summed(const float* before, const float* column) const {
    float sum = 0;
    int64_t c = 0;
    for (; c + kAhead <= job.channels; c += kAhead) add<kAhead>(before + c, column, c, sum);
    for (; c < job.channels; c++) add<1>(before + c, column, c, sum);
    return sum;
  }

  template <int count>
  SYNAPSE_INLINE void add(const float* before, const float* column, int64_t c, float& sum) const {
    float spike[count];
    each<count>([&](auto j) SYNAPSE_LAMBDA { spike[j] = before[j]; });
    each<count>([&](auto j) SYNAPSE_LAMBDA {
      if (spike[j] != 0.0f) sum += spike[j] * column[(c + static_cast<int64_t>(j)) * job.channels];
    });
  }
};

// The processor in place of the device. Every other phase takes its threads from the last to the
// first: a result that depends on their order would not be the same twice.
class Emulated {
 public:
  static constexpr const char* kProvider = "CPUExecutionProvider";
  static constexpr OrtMemType kWeightMemory = OrtMemTypeDefault;
  using Array = std::shared_ptr<const std::vector<float>>;

  explicit Emulated(const Ort::KernelContext&) {}

  template <class Work>
  void launch(const Work& work) const {
    const Size size = work.size();
    for (int64_t block = 0; block < size.blocks; block++)
      for (int64_t phase = 0; phase < work.phases(); phase++)
        for (int i = 0; i < size.threads; i++)
          work(phase, block, phase % 2 ? size.threads - 1 - i : i, size.threads);
  }

  Array place(const Array& values) const { return values; }
  static const float* at(const Array& values) { return values->data(); }
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
    throw CallError(std::string("CUDA failed to ") + what + ": " + cudaGetErrorString(error));
}

// Numbers in the device's memory.
class DeviceArray {
 public:
  DeviceArray(const std::vector<float>& values, cudaStream_t stream) {
    if (values.empty()) return;
    const size_t bytes = values.size() * sizeof(float);
    check(cudaMalloc(&data_, bytes), "take memory");
    cudaError_t error =
        cudaMemcpyAsync(data_, values.data(), bytes, cudaMemcpyHostToDevice, stream);
    if (error == cudaSuccess) error = cudaStreamSynchronize(stream);
    if (error != cudaSuccess) cudaFree(data_);
    check(error, "copy the weights of the feedback");
  }
  DeviceArray(const DeviceArray&) = delete;
  ~DeviceArray() { cudaFree(data_); }  // which waits for what still reads them
  const float* data() const { return static_cast<const float*>(data_); }

 private:
  void* data_ = nullptr;
};

// The device that holds the arguments of a call, and ONNX Runtime's stream on it.
class Device {
 public:
  static constexpr const char* kProvider = "CUDAExecutionProvider";
  static constexpr OrtMemType kWeightMemory = OrtMemTypeCPUInput;
  using Array = std::shared_ptr<const DeviceArray>;

  explicit Device(const Ort::KernelContext& context)
      : stream_(static_cast<cudaStream_t>(context.GetGPUComputeStream())) {
    const auto memory = context.GetInput(0).GetTensorMemoryInfo();
    if (memory.GetDeviceType() != OrtMemoryInfoDeviceType_GPU)
      throw CallError("the arguments are not in a GPU's memory");
    check(cudaSetDevice(memory.GetDeviceId()), "choose the device");
  }

  template <class Work>
  void launch(const Work& work) const {
    const Size size = work.size();
    if (size.blocks == 0 || size.threads == 0) return;
    if (size.blocks > INT32_MAX)
      throw CallError("a GPU takes no more than " + std::to_string(INT32_MAX) +
                      " blocks of neurons, got " + std::to_string(size.blocks));
    grid<<<static_cast<unsigned>(size.blocks), static_cast<unsigned>(size.threads), 0, stream_>>>(
        work);
    check(cudaGetLastError(), "start the kernel");
  }

  Array place(const std::shared_ptr<const std::vector<float>>& values) const {
    return std::make_shared<const DeviceArray>(*values, stream_);
  }
  static const float* at(const Array& values) { return values->data(); }

 private:
  cudaStream_t stream_;
};
#endif

// Calls that a grid computes, on the device or in its place.
template <class E, Regime regime, Kind kind, class Where>
class GridKernel : public NeuronNode<E, regime, kind> {
 public:
  using Node = NeuronNode<E, regime, kind>;
  static constexpr const char* kProvider = Where::kProvider;
  static constexpr OrtMemType kWeightMemory = Where::kWeightMemory;

  explicit GridKernel(const OrtKernelInfo* info) : Node(Ort::ConstKernelInfo(info)) {}

  OrtStatusPtr ComputeV2(OrtKernelContext* raw) const {
    return guarded(Node::name().c_str(), [&] {
      const Ort::KernelContext context(raw);
      const Where where(context);
      const Job<E> job = this->job_of(context);
      if constexpr (Node::kFed) {
        with_feedback(where, job, this->feedback_of(context, job));
      } else {
        where.launch(Sequence<E, regime, kind>{job});
      }
    });
  }

 private:
  using Array = typename Where::Array;

  void with_feedback(const Where& where, const Job<E>& job, const Feedback<E>& feedback) const {
    FedSequence<E, regime> work{};
    work.job = job;
    work.spikes = feedback.spikes;
    work.last_spikes = feedback.last_spikes;
    Array arrays[E::currents];  // which live until the kernel has been started, and freeing waits
    for (int k = 0; k < E::currents; k++) {
      arrays[k] = placed(where, k, feedback.matrix[k]);
      work.matrix[k] = Where::at(arrays[k]);
      work.gain[k] = feedback.gain[k];
      work.gains[k] = feedback.gains[k];
    }
    where.launch(work);
  }

  // A matrix where the grid reads it; the file's is placed once.
  Array placed(const Where& where, int k,
               const std::shared_ptr<const std::vector<float>>& matrix) const {
    if (!this->holds(k)) return where.place(matrix);
    const std::lock_guard<std::mutex> lock(mutex_);
    if (!placed_[k]) placed_[k] = where.place(matrix);
    return placed_[k];
  }

  mutable std::mutex mutex_;
  mutable Array placed_[E::currents];
};

// The kernels of a neuron that this library brings.
template <class E, Regime regime, Kind kind>
using Kernels = std::tuple<GridKernel<E, regime, kind, Emulated>
#if defined(__CUDACC__)
                           ,
                           GridKernel<E, regime, kind, Device>
#endif
                           >;

}  // namespace synapse
