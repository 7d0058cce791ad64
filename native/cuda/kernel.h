// The kernel of a neuron for the CUDA execution provider, and the same device code for the
// processor.
#pragma once

#include <memory>
#include <mutex>
#include <tuple>
#include <vector>

#include "cuda/device.h"
#include "cuda/sequence.h"
#include "neuron/node.h"

namespace synapse {

// `Device` is CudaDevice or EmulatedDevice.
template <class E, Regime regime, Kind kind, class Device>
class GridKernel : public NeuronNode<E, regime, kind> {
 public:
  using Node = NeuronNode<E, regime, kind>;
  static constexpr const char* kProvider = Device::kProvider;
  static constexpr OrtMemType kWeightMemory = Device::kWeightMemory;

  explicit GridKernel(const OrtKernelInfo* info) : Node(Ort::ConstKernelInfo(info)) {}

  OrtStatusPtr ComputeV2(OrtKernelContext* raw) const {
    return guarded(Node::name().c_str(), [&] {
      const Ort::KernelContext context(raw);
      const Device device(context);
      const NeuronArguments<E> args = this->read_arguments(context);
      if constexpr (Node::kRecurrent) {
        run_recurrent(device, args, this->read_feedback(context, args));
      } else {
        device.launch(Sequence<E, regime, kind>{args});
      }
    });
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
      work.matrix[k] = Device::at(arrays[k]);
      work.weight_scale[k] = feedback.weight_scale[k];
      work.scale_count[k] = feedback.scale_count[k];
    }
    device.launch(work);
  }

  // A matrix in the memory of the device. Constant weights are copied there once.
  Array device_matrix(const Device& device, int k,
                      const std::shared_ptr<const std::vector<float>>& matrix) const {
    if (!this->has_constant_matrix(k)) return device.place(matrix);
    const std::lock_guard<std::mutex> lock(mutex_);
    if (!device_matrix_[k]) device_matrix_[k] = device.place(matrix);
    return device_matrix_[k];
  }

  mutable std::mutex mutex_;
  mutable Array device_matrix_[E::currents];
};

// The kernels of this library for one op.
template <class E, Regime regime, Kind kind>
using NeuronKernels = std::tuple<GridKernel<E, regime, kind, EmulatedDevice>
#if defined(__CUDACC__)
                                 ,
                                 GridKernel<E, regime, kind, CudaDevice>
#endif
                                 >;

}  // namespace synapse
