// A node of a neuron: its name, the order of its inputs and outputs, its attributes, and the
// arguments of a call. The kernels for the processor and for CUDA derive from it.
#pragma once

#include <algorithm>
#include <memory>
#include <string>
#include <vector>

#include "base/tensor.h"
#include "neuron/arguments.h"
#include "neuron/equation.h"

namespace synapse {

// The name of an op, such as RecurrentCubaLoihi or CubaDynamicsFloat.
template <class E, Regime regime, Kind kind>
const std::string& op_name() {
  static const std::string name = std::string(kind == Kind::recurrent ? "Recurrent" : "") +
                                  E::name + (kind == Kind::dynamics ? "Dynamics" : "") +
                                  (regime == Regime::floating ? "Float"
                                   : regime == Regime::loihi  ? "Loihi"
                                   : regime == Regime::biased ? "Biased"
                                   : regime == Regime::normed ? "Normed"
                                                              : "");
  return name;
}

// The inputs are the currents, with feedback the weights, the weight scales and the last spikes,
// then the parameters, the bias or norm, and the states. The outputs are the sequences, with
// feedback the last spikes, and the last states.
template <class E, Regime regime, Kind kind>
class NeuronNode {
 public:
  static const std::string& name() { return op_name<E, regime, kind>(); }

  static constexpr int kNorms = !E::biased                                            ? 0
                                : regime == Regime::normed                            ? 2
                                : regime == Regime::loihi || regime == Regime::biased ? 1
                                                                                      : 0;
  static constexpr bool kRecurrent = kind == Kind::recurrent;
  static constexpr int kCurrents = E::currents;
  static constexpr int kStates = E::states;
  static constexpr int kParameters = static_cast<int>(std::size(E::parameters));
  static constexpr int kWeightsAt = E::currents;
  static constexpr int kSpikesAt = kWeightsAt + (kRecurrent ? 2 * E::currents : 0);
  static constexpr int kParametersAt = kSpikesAt + (kRecurrent ? 1 : 0);
  static constexpr int kStatesAt = kParametersAt + kParameters + kNorms;
  static constexpr int kInputs = kStatesAt + E::states;
  static constexpr int kSequences = kSequenceOutputs<E, kind>;
  static constexpr int kOutputs = kSequences + (kRecurrent ? 1 : 0) + E::states;
  static constexpr ONNXTensorElementDataType kState =
      Ort::TypeToTensorType<typename ExactArithmetic<regime>::Carried>::type;

 protected:
  explicit NeuronNode(const Ort::ConstKernelInfo& info) {
    if constexpr (regime != Regime::floating)
      scale_ = static_cast<float>(info.GetAttribute<int64_t>("scale"));
    for (int k = 0; k < E::constants; k++) {
      if constexpr (regime == Regime::floating)
        float_constant_[k] = info.GetAttribute<float>(E::constant_names[k]);
      else
        integer_constant_[k] = info.GetAttribute<int64_t>(E::constant_names[k]);
    }
    if constexpr (kind != Kind::dynamics) graded_ = info.GetAttribute<int64_t>("graded") != 0;
    if constexpr (kRecurrent) {  // constant weights are laid out once
      for (int k = 0; k < E::currents; k++) {
        int constant = 0;
        const auto weight =
            info.GetTensorConstantInput(static_cast<size_t>(kWeightsAt + k), &constant);
        if (constant && on_cpu(weight))
          matrix_[k] = std::make_shared<const std::vector<float>>(to_matrix(Input(weight)));
      }
    }
  }

  // Reads the arguments of a call, and throws where they do not fit together.
  NeuronArguments<E> read_arguments(const Ort::KernelContext& context) const {
    const Input x(context, 0);
    NeuronArguments<E> args = read_arguments(context, x.shape, 0);
    for (int k = 0; k < E::currents; k++) {
      const Input current(context, static_cast<size_t>(k));
      if (current.shape != x.shape)
        throw CallError("currents differ in shape: " + text(x.shape) + " and " +
                        text(current.shape));
      args.x[k] = current.as<float>();
    }
    return args;
  }

  // Reads all arguments but the currents, of which only the shape is known yet. The inputs after
  // the currents are `shift` places further on than in a node of the neuron alone.
  NeuronArguments<E> read_arguments(const Ort::KernelContext& context,
                                    const std::vector<int64_t>& shape, int shift) const {
    if (shape.size() < 3)
      throw CallError("currents need the axes (T, N, C, ...), got " + text(shape));
    const std::vector<int64_t> plane(shape.begin() + 1, shape.end());
    NeuronArguments<E> args{};
    args.steps = shape[0];
    args.neurons = args.stride = product(plane);
    args.sample = product(shape, 2);
    args.channels = shape[2];
    args.scale = scale_;
    args.graded = graded_;
    std::copy(std::begin(integer_constant_), std::end(integer_constant_), args.integer_constant);
    std::copy(std::begin(float_constant_), std::end(float_constant_), args.float_constant);
    for (int k = 0; k < kParameters + kNorms; k++) {
      const Input values(context, static_cast<size_t>(kParametersAt + shift + k));
      const int norm = k - kParameters;
      const bool per_neuron = norm >= 0 || E::parameters[k < kParameters ? k : 0].per_neuron;
      if (values.size != 1 && values.size != args.channels &&
          !(per_neuron && values.size == args.sample))
        throw CallError("a parameter of shape " + text(values.shape) +
                        " is neither one value nor one for each of " +
                        std::to_string(args.channels) + " channels");
      if (norm >= 0) {
        args.norm[norm] = values.as<float>();
        args.norm_size[norm] = values.size;
      } else {
        args.parameter[k] = values.as<float>();
        args.parameter_size[k] = values.size;
      }
    }
    for (int k = 0; k < E::states; k++) {
      const Input state(context, static_cast<size_t>(kStatesAt + shift + k));
      if (state.shape != plane)
        throw CallError("a state of shape " + text(state.shape) + " does not fit currents of " +
                        text(shape));
      args.start[k] = state.data;
      auto last = context.GetOutput(static_cast<size_t>(kOutputs - E::states + k), plane);
      args.last[k] = last.GetTensorMutableRawData();
    }
    for (int k = 0; k < kSequences; k++) {
      auto out = context.GetOutput(static_cast<size_t>(k), shape);
      args.out[k] = out.template GetTensorMutableData<float>();
    }
    return args;
  }

  // Reads the feedback of a call, and throws where it does not fit. Weights that are no constants
  // are laid out for this call.
  Feedback<E> read_feedback(const Ort::KernelContext& context,
                            const NeuronArguments<E>& args) const {
    Feedback<E> feedback;
    const int64_t channels = args.channels;
    if (args.sample != channels)
      throw CallError("feedback needs currents (T, N, C), got " + std::to_string(args.sample) +
                      " neurons of " + std::to_string(channels) + " channels");
    for (int k = 0; k < E::currents; k++) {
      const Ort::ConstValue value = context.GetInput(static_cast<size_t>(kWeightsAt + k));
      const Input weight(value);
      const Input scale(context, kWeightsAt + E::currents + k);
      if (weight.size != channels * channels)
        throw CallError("a feedback weight of shape " + text(weight.shape) + " does not join " +
                        std::to_string(channels) + " neurons");
      check_weight_scale(scale, channels, "channels");
      feedback.weight_scale[k] = scale.as<float>();
      feedback.scale_count[k] = scale.size;
      feedback.matrix[k] = matrix_[k];
      if (feedback.matrix[k]) continue;
      if (!on_cpu(value)) throw CallError("feedback weights must be in the processor's memory");
      feedback.matrix[k] = std::make_shared<const std::vector<float>>(to_matrix(weight));
    }
    const Input spikes(context, kSpikesAt);
    const std::vector<int64_t> plane = {channels ? args.neurons / channels : 0, channels};
    if (spikes.shape != plane)
      throw CallError("spikes of shape " + text(spikes.shape) + " do not fit " + text(plane));
    feedback.spikes = spikes.as<float>();
    feedback.last_spikes =
        context.GetOutput(kSequences, plane).template GetTensorMutableData<float>();
    return feedback;
  }

  // Whether the feedback weights of a current are constants of the file.
  bool has_constant_matrix(int k) const { return matrix_[k] != nullptr; }

 private:
  static bool on_cpu(const Ort::ConstValue& value) {
    return value.GetTensorMemoryInfo().GetDeviceType() == OrtMemoryInfoDeviceType_CPU;
  }

  // Transposes a weight (C, C, ...), so that a spike adds one row.
  static std::vector<float> to_matrix(const Input& weight) {
    const int64_t channels = weight.shape.empty() ? 0 : weight.shape[0];
    if (weight.size != channels * channels)
      throw CallError("a feedback weight of shape " + text(weight.shape) + " is no square");
    std::vector<float> matrix(static_cast<size_t>(weight.size));
    for (int64_t o = 0; o < channels; o++)
      for (int64_t c = 0; c < channels; c++)
        matrix[static_cast<size_t>(c * channels + o)] = element(weight, o * channels + c);
    return matrix;
  }

  // Feedback weights are floats, or integers of 4, 8 or 16 bits.
  static float element(const Input& weight, int64_t index) {
    if (weight.type == ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT) return weight.as<float>()[index];
    return static_cast<float>(integer_weight(weight, index, "float, int4, int8 or int16"));
  }

  float scale_ = 1;
  bool graded_ = false;
  int64_t integer_constant_[E::constants + 1] = {};
  float float_constant_[E::constants + 1] = {};
  std::shared_ptr<const std::vector<float>> matrix_[E::currents];  // of constant weights
};

}  // namespace synapse
