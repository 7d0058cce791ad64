// A node of a neuron: its name, the order of its inputs and outputs, its attributes, and the
// arguments of a call. The kernels for the processor and for CUDA derive from it.
#pragma once

#include <cstdint>
#include <iterator>
#include <memory>
#include <string>
#include <utility>

#include "base/call.h"
#include "base/compiler.h"
#include "base/memory.h"
#include "base/op.h"
#include "neuron/equation.h"

namespace synapse {

// The values of a parameter: one for all neurons, for each channel, or for each neuron of a sample.
struct ParameterValues {
  const float* data;
  int64_t size;
};

// The arguments of a call, as plain pointers and sizes that a GPU can take as well.
template <class E>
struct NeuronArguments {
  int64_t steps, neurons, sample, channels;  // neurons = batch * sample
  // the current of a neuron at a step is x[step * stride + neuron - origin]
  int64_t stride, origin;
  float scale;
  bool graded;
  const float* x[E::currents];
  ParameterValues parameter[std::size(E::parameters)];
  ParameterValues norm[2];  // bias and gain; null where the equation or the regime has none
  const void* start[E::states];
  void* last[E::states];
  float* out[E::traces > 1 ? E::traces : 1];
  int64_t integer_constant[E::constants + 1];
  float float_constant[E::constants + 1];

  SYNAPSE_INLINE float value(const ParameterValues& of, int64_t neuron) const {
    if (of.size == 1) return of.data[0];
    const int64_t within = neuron % sample;
    return of.size == sample ? of.data[within] : of.data[within / (sample / channels)];
  }

  // The bias of a neuron, or its norm.
  template <class A>
  SYNAPSE_INLINE typename A::Bias bias(const A& a, int64_t neuron, int32_t& magnitudes) const {
    return a.bias(norm[0].data ? value(norm[0], neuron) : 0.0f,
                  norm[1].data ? value(norm[1], neuron) : 1.0f, magnitudes);
  }
};

using Matrix =
    std::shared_ptr<const AlignedVector<float>>;  // (C, C), a row for each spiking neuron

// Feedback: current[t] = x[t] + scale * (matrix s[t-1]), within a sample (C,).
template <class E>
struct Feedback {
  Matrix matrix[E::currents];
  WeightScale scale[E::currents];
  const float* spikes;
  float* last_spikes;
};

// The inputs are the currents, with feedback the weights, the weight scales and the last spikes,
// then the parameters, the bias or norm, and the states. The outputs are the sequences, with
// feedback the last spikes, and the last states.
template <class E, Regime regime, Kind kind>
class NeuronNode : public Kernel {
 public:
  // Such as RecurrentCubaLoihi or CubaDynamicsFloat.
  static std::string name() {
    return std::string(kind == Kind::recurrent ? "Recurrent" : "") + E::name +
           (kind == Kind::dynamics ? "Dynamics" : "") +
           (regime == Regime::floating ? "Float"
            : regime == Regime::loihi  ? "Loihi"
            : regime == Regime::biased ? "Biased"
            : regime == Regime::normed ? "Normed"
                                       : "");
  }

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
  explicit NeuronNode(const OrtKernelInfo* raw) {
    const Ort::ConstKernelInfo info(raw);
    attributes_.scale = 1;
    if constexpr (regime != Regime::floating)
      attributes_.scale = static_cast<float>(info.GetAttribute<int64_t>("scale"));
    for (int k = 0; k < E::constants; k++) {
      if constexpr (regime == Regime::floating)
        attributes_.float_constant[k] = info.GetAttribute<float>(E::constant_names[k]);
      else
        attributes_.integer_constant[k] = info.GetAttribute<int64_t>(E::constant_names[k]);
    }
    if constexpr (kind != Kind::dynamics)
      attributes_.graded = info.GetAttribute<int64_t>("graded") != 0;
    if constexpr (kRecurrent) {  // constant weights are laid out once
      for (int k = 0; k < E::currents; k++) {
        const auto weight = constant_input(raw, kWeightsAt + k);
        if (weight && on_cpu(weight)) matrix_[k] = to_matrix(Input(weight));
      }
    }
  }

  // Reads the arguments of a call, and throws where they do not fit together.
  NeuronArguments<E> read_arguments(const Ort::KernelContext& context) const {
    const Input x(context, 0);
    NeuronArguments<E> args = read_arguments(context, x.shape, 0);
    for (int k = 0; k < E::currents; k++) {
      const Input current(context, k);
      if (current.shape != x.shape)
        throw CallError("currents differ in shape: ", x.shape, " and ", current.shape);
      args.x[k] = current.as<float>();
    }
    return args;
  }

  // Reads all arguments but the currents, of which only the shape is known yet. The inputs after
  // the currents are `shift` places further on than in a node of the neuron alone.
  NeuronArguments<E> read_arguments(const Ort::KernelContext& context, const Shape& shape,
                                    int shift) const {
    const Shape plane = plane_of(shape, "currents need");
    NeuronArguments<E> args = attributes_;
    args.steps = shape[0];
    args.neurons = args.stride = product(plane);
    args.sample = product(shape, 2);
    args.channels = shape[2];
    for (int k = 0; k < kParameters + kNorms; k++) {
      const Input values(context, kParametersAt + shift + k);
      const int norm = k - kParameters;
      const bool per_neuron = norm >= 0 || E::parameters[k < kParameters ? k : 0].per_neuron;
      if (values.size != 1 && values.size != args.channels &&
          !(per_neuron && values.size == args.sample))
        throw CallError("a parameter of shape ", values.shape,
                        " is neither one value nor one for each of ", args.channels, " channels");
      ParameterValues& to = norm >= 0 ? args.norm[norm] : args.parameter[k];
      to = {values.template as<float>(), values.size};
    }
    for (int k = 0; k < E::states; k++) {
      const Input state(context, kStatesAt + shift + k);
      if (state.shape != plane)
        throw CallError("a state of shape ", state.shape, " does not fit currents of ", shape);
      args.start[k] = state.data;
      args.last[k] = context.GetOutput(kOutputs - E::states + k, plane).GetTensorMutableRawData();
    }
    for (int k = 0; k < kSequences; k++) args.out[k] = float_output(context, k, shape);
    return args;
  }

  // Reads the feedback of a call, and throws where it does not fit. Weights that are no constants
  // are laid out for this call.
  Feedback<E> read_feedback(const Ort::KernelContext& context,
                            const NeuronArguments<E>& args) const {
    Feedback<E> feedback;
    const int64_t channels = args.channels;
    if (args.sample != channels)
      throw CallError("feedback needs currents (T, N, C), got ", args.sample, " neurons of ",
                      channels, " channels");
    for (int k = 0; k < E::currents; k++) {
      const Ort::ConstValue value = context.GetInput(kWeightsAt + k);
      const Input weight(value);
      if (weight.size != channels * channels)
        throw CallError("a feedback weight of shape ", weight.shape, " does not join ", channels,
                        " neurons");
      const Input scale(context, kWeightsAt + E::currents + k);
      feedback.scale[k] = weight_scale(scale, channels, "channels");
      feedback.matrix[k] = matrix_[k];
      if (feedback.matrix[k]) continue;
      if (!on_cpu(value)) throw CallError("feedback weights must be in the processor's memory");
      feedback.matrix[k] = to_matrix(weight);
    }
    const Input spikes(context, kSpikesAt);
    const Shape plane = {channels ? args.neurons / channels : 0, channels};
    if (spikes.shape != plane)
      throw CallError("spikes of shape ", spikes.shape, " do not fit ", plane);
    feedback.spikes = spikes.as<float>();
    feedback.last_spikes = float_output(context, kSequences, plane);
    return feedback;
  }

  // Whether the feedback weights of a current are constants of the file.
  bool has_constant_matrix(int k) const { return matrix_[k] != nullptr; }

 private:
  static bool on_cpu(const Ort::ConstValue& value) {
    return value.GetTensorMemoryInfo().GetDeviceType() == OrtMemoryInfoDeviceType_CPU;
  }

  // Transposes a weight (C, C, ...), so that a spike adds one row.
  static Matrix to_matrix(const Input& weight) {
    const int64_t channels = weight.shape.empty() ? 0 : weight.shape[0];
    if (weight.size != channels * channels)
      throw CallError("a feedback weight of shape ", weight.shape, " is no square");
    AlignedVector<float> matrix(weight.size);
    for (int64_t i = 0; i < weight.size; i++)
      matrix.data()[i % channels * channels + i / channels] =
          weight.type == kFloat ? weight.as<float>()[i]
                                : integer_weight(weight, i, "float, int4, int8 or int16");
    return std::make_shared<const AlignedVector<float>>(std::move(matrix));
  }

  NeuronArguments<E> attributes_{};  // with the node's attributes, and nothing of a call
  Matrix matrix_[E::currents];       // of constant weights
};

}  // namespace synapse
