// From an equation to kernels: spikes, traces of the variables, spikes with feedback, each in every
// numeric regime that the equation is for.
//
// An equation states one step for one neuron:
//
//   struct Cuba {
//     static constexpr const char* name = "Cuba";
//     static constexpr int currents = 1, states = 2, constants = 1, traces = 2;
//     static constexpr int graded = 1;         // the trace that a graded spike carries
//     static constexpr Parameter parameters[] = {{}, {}};  // both kept
//     static constexpr const char* constant_names[] = {"threshold"};
//     static constexpr bool biased = true;     // a bias, or a norm: inputs behind the parameters
//     static constexpr bool compared = true;   // its constants are but compared with states
//     template <class A>                       // returns whether it spikes
//     static bool step(const A& a, const typename A::V* x, const typename A::F* p,
//                      typename A::Bias bias, typename A::V* s, const typename A::V* c,
//                      typename A::V* trace);
//   };
//
// A kernel takes a block of neurons through all of time, so that their states stay in the first
// level cache, and the compiler turns the loop over the neurons of a block into vectors. In fixed
// point a block is computed in 32 bits, and once more in 64 where a state did not fit.
#pragma once

#include <algorithm>
#include <iterator>
#include <memory>
#include <tuple>
#include <type_traits>
#include <utility>

#include "arithmetic.h"
#include "behind.h"

namespace synapse {

struct Parameter {
  bool kept = true;    // the step gets 1 - value instead of the value
  bool level = false;  // may have a value of its own for every neuron of a sample
};

enum class Kind { spikes, dynamics, recurrent };

// Sequences that a kernel gives.
template <class E, Kind kind>
constexpr int kResults = kind == Kind::dynamics ? E::traces : 1;

constexpr int kLanes = 512;  // neurons of a block, at the most

// What a call has to compute, the same for all blocks.
template <class E>
struct Job {
  int64_t steps, neurons, sample, channels;  // neurons = batch * sample
  // the current of a neuron at a step is x[step * stride + neuron - origin]
  int64_t stride, origin;
  float scale;
  bool graded;
  const float* x[E::currents];
  const float* parameter[std::size(E::parameters)];
  int64_t parameter_size[std::size(E::parameters)];
  const float* norm[2];  // bias and gain, where there are
  int64_t norm_size[2];
  const void* start[E::states];
  void* last[E::states];
  float* out[E::traces > 1 ? E::traces : 1];
  int64_t integer_constant[E::constants + 1];
  float float_constant[E::constants + 1];
};

// The states and parameters of a block of neurons.
template <class E, class A>
struct Block {
  alignas(64) typename A::V state[E::states][kLanes];
  alignas(64) typename A::F parameter[std::size(E::parameters)][kLanes];
  alignas(64) typename A::Bias bias[kLanes];
  alignas(64) int32_t seen[kLanes];
  typename A::V constant[E::constants + 1];
  A a;
  bool fits;
};

// Value of a parameter for a neuron: one for all, one a channel, or one for each of a sample.
SYNAPSE_INLINE float value_for(const float* values, int64_t size, int64_t sample, int64_t channels,
                               int64_t neuron) {
  if (size == 1) return values[0];
  const int64_t within = neuron % sample;
  return size == sample ? values[within] : values[within / (sample / channels)];
}

// What stands where slayer has a norm, for a neuron.
template <class E, class A>
SYNAPSE_INLINE typename A::Bias bias_for(const Job<E>& job, const A& a, int64_t neuron,
                                         int32_t& seen) {
  float values[2] = {0.0f, 1.0f};
  for (int k = 0; k < 2; k++)
    if (job.norm[k] != nullptr)
      values[k] = value_for(job.norm[k], job.norm_size[k], job.sample, job.channels, neuron);
  return a.bias(values[0], values[1], seen);
}

template <class E, class A>
SYNAPSE_INLINE void load(const Job<E>& job, Block<E, A>& block, int64_t first, int count) {
  block.a.scale = job.scale;
  block.fits = true;
  for (int i = 0; i < count; i++) block.seen[i] = 0;
  for (size_t k = 0; k < std::size(E::parameters); k++) {
    const float* values = job.parameter[k];
    const int64_t size = job.parameter_size[k];
    if (size == 1) {
      const auto shared = block.a.fraction(values[0], E::parameters[k].kept, block.fits);
      std::fill_n(block.parameter[k], count, shared);
      continue;
    }
    for (int i = 0; i < count; i++) {
      const float value = value_for(values, size, job.sample, job.channels, first + i);
      block.parameter[k][i] = block.a.fraction(value, E::parameters[k].kept, block.fits);
    }
  }
  if (job.norm[0] == nullptr) {
    std::fill_n(block.bias, count, bias_for(job, block.a, first, block.seen[0]));
  } else {
    for (int i = 0; i < count; i++)
      block.bias[i] = bias_for(job, block.a, first + i, block.seen[i]);
  }
  for (int k = 0; k < E::states; k++) {
    const auto* start = static_cast<const typename A::Carried*>(job.start[k]) + first;
    SYNAPSE_INDEPENDENT
    for (int i = 0; i < count; i++) block.state[k][i] = block.a.start(start[i], block.seen[i]);
  }
  for (int k = 0; k < E::constants; k++) {
    if constexpr (std::is_same_v<A, Floating>) {
      block.constant[k] = block.a.constant(job.float_constant[k]);
    } else {
      block.constant[k] = block.a.constant(job.integer_constant[k]);
      const int64_t value = job.integer_constant[k];
      if (!E::compared && (value <= -kNarrowLimit || value >= kNarrowLimit)) block.fits = false;
    }
  }
}

template <class E, class A>
SYNAPSE_INLINE void store(const Job<E>& job, const Block<E, A>& block, int64_t first, int count) {
  for (int k = 0; k < E::states; k++) {
    auto* last = static_cast<typename A::Carried*>(job.last[k]) + first;
    for (int i = 0; i < count; i++) last[i] = static_cast<typename A::Carried>(block.state[k][i]);
  }
}

// Call f(0), f(1), ... f(n - 1): written out, for a loop within a loop is not made a vector.
template <class F, size_t... k>
SYNAPSE_INLINE void each(const F& f, std::index_sequence<k...>) {
  (f(std::integral_constant<size_t, k>{}), ...);
}
template <size_t n, class F>
SYNAPSE_INLINE void each(const F& f) {
  each(f, std::make_index_sequence<n>{});
}

// One time step of a neuron: its currents in x, and its spike or its traces to out.
template <class E, class A, Kind kind>
SYNAPSE_INLINE void advance(const A& a, const float* x, const typename A::F* parameter,
                            typename A::Bias bias, typename A::V* state,
                            const typename A::V* constant, float* out, int32_t& seen, bool graded) {
  typename A::V current[E::currents], trace[E::traces > 1 ? E::traces : 1];
  each<E::currents>([&](auto k) SYNAPSE_LAMBDA { current[k] = a.take(x[k], seen); });
  const bool spike = E::template step<A>(a, current, parameter, bias, state, constant, trace);
  each<E::states>([&](auto k) SYNAPSE_LAMBDA { a.watch(state[k], seen); });
  if constexpr (kind == Kind::dynamics) {
    each<E::traces>([&](auto k) SYNAPSE_LAMBDA { out[k] = a.give(trace[k]); });
  } else {
    out[0] = spike ? (graded ? a.give(trace[E::graded]) : 1.0f) : 0.0f;
  }
}

// One time step of a block: currents in x, and spikes or traces to out.
template <class E, class A, Kind kind, bool graded>
SYNAPSE_INLINE void row(Block<E, A>& block, const float* const* x, float* const* out, int count) {
  using V = typename A::V;
  const A a = block.a;
  SYNAPSE_INDEPENDENT
  for (int i = 0; i < count; i++) {
    V state[E::states];
    typename A::F parameter[std::size(E::parameters)];
    float in[E::currents], result[kResults<E, kind>];
    int32_t seen = 0;
    each<E::currents>([&](auto k) SYNAPSE_LAMBDA { in[k] = x[k][i]; });
    each<E::states>([&](auto k) SYNAPSE_LAMBDA { state[k] = block.state[k][i]; });
    each<std::size(E::parameters)>([&](auto k)
                                       SYNAPSE_LAMBDA { parameter[k] = block.parameter[k][i]; });
    advance<E, A, kind>(a, in, parameter, block.bias[i], state, block.constant, result, seen,
                        graded);
    each<E::states>([&](auto k) SYNAPSE_LAMBDA { block.state[k][i] = state[k]; });
    if constexpr (A::kWatches) block.seen[i] |= seen;
    each<kResults<E, kind>>([&](auto k) SYNAPSE_LAMBDA { out[k][i] = result[k]; });
  }
}

// Whether all that came by fitted the arithmetic.
template <class E, class A>
SYNAPSE_INLINE bool fitted(const Block<E, A>& block, int count) {
  if constexpr (!A::kWatches) return true;
  int32_t seen = 0;
  for (int i = 0; i < count; i++) seen |= block.seen[i];
  return block.fits && seen >= 0 && seen < kNarrowLimit;
}

// Take a block through all of time; whether it is right.
template <class E, class A, Kind kind, bool graded>
struct OverTime {
  SYNAPSE_CLONES static bool run(const Job<E>& job, int64_t first, int count) {
    Block<E, A> block;
    load(job, block, first, count);
    if (!fitted(block, count)) return false;
    for (int64_t t = 0; t < job.steps; t++) {
      const int64_t at = t * job.neurons + first;
      const int64_t from = t * job.stride + first - job.origin;
      const float* x[E::currents];
      float* out[kResults<E, kind>];
      for (int k = 0; k < E::currents; k++) x[k] = job.x[k] + from;
      for (int k = 0; k < kResults<E, kind>; k++) out[k] = job.out[k] + at;
      row<E, A, kind, graded>(block, x, out, count);
    }
    if (!fitted(block, count)) return false;
    store(job, block, first, count);
    return true;
  }
};

// Feedback: current[t] = x[t] + gain * (matrix s[t-1]), of one sample, whose neurons are channels.
template <class E>
struct Feedback {
  std::shared_ptr<const std::vector<float>> matrix[E::currents];  // (C, C), a row a spiking neuron
  const float* gain[E::currents];
  int64_t gains[E::currents];  // one, or one a channel
  const float* spikes;
  float* last_spikes;
};

// sums[o] = sum over c of spikes[c] * matrix[c][o]; what is silent costs nothing.
struct Sums {
  SYNAPSE_CLONES static void run(const float* spikes, const float* matrix, float* sums,
                                 int64_t channels) {
    std::fill_n(sums, channels, 0.0f);
    for (int64_t c = 0; c < channels; c++) {
      const float spike = spikes[c];
      if (spike == 0.0f) continue;
      const float* weights = matrix + c * channels;
      SYNAPSE_INDEPENDENT
      for (int64_t o = 0; o < channels; o++) sums[o] += spike * weights[o];
    }
  }
};

// One row of a block that feeds back; apart, so that it has its instruction sets.
template <class E, class A, bool graded>
struct Row {
  SYNAPSE_CLONES static void run(Block<E, A>& block, const float* const* x, float* const* out,
                                 int count) {
    row<E, A, Kind::recurrent, graded>(block, x, out, count);
  }
};

struct Gained {
  SYNAPSE_CLONES static void run(const float* x, const float* gain, int64_t gains, float* sums,
                                 int64_t count) {
    const float shared = gain[0];
    SYNAPSE_INDEPENDENT
    for (int64_t o = 0; o < count; o++) sums[o] = x[o] + sums[o] * (gains == 1 ? shared : gain[o]);
  }
};

template <class E, class A, bool graded>
bool fed_back(const Job<E>& job, const Feedback<E>& feedback, int64_t item) {
  const int64_t channels = job.sample, offset = item * channels;
  const int64_t count = (channels + kLanes - 1) / kLanes;
  std::vector<Block<E, A>> blocks(static_cast<size_t>(count));
  std::vector<float> currents(static_cast<size_t>(E::currents * channels));
  const auto lanes = [&](int64_t b) {
    return static_cast<int>(std::min<int64_t>(kLanes, channels - b * kLanes));
  };
  for (int64_t b = 0; b < count; b++) {
    load(job, blocks[b], offset + b * kLanes, lanes(b));
    if (!fitted(blocks[b], lanes(b))) return false;
  }
  const float* spikes = feedback.spikes + offset;
  for (int64_t t = 0; t < job.steps; t++) {
    const int64_t at = t * job.neurons + offset;
    for (int k = 0; k < E::currents; k++) {
      float* sums = currents.data() + k * channels;
      Sums::run(spikes, feedback.matrix[k]->data(), sums, channels);
      Gained::run(job.x[k] + at, feedback.gain[k], feedback.gains[k], sums, channels);
    }
    for (int64_t b = 0; b < count; b++) {
      const float* x[E::currents];
      for (int k = 0; k < E::currents; k++) x[k] = currents.data() + k * channels + b * kLanes;
      float* out[1] = {job.out[0] + at + b * kLanes};
      Row<E, A, graded>::run(blocks[b], x, out, lanes(b));
    }
    spikes = job.out[0] + at;
  }
  for (int64_t b = 0; b < count; b++) {
    if (!fitted(blocks[b], lanes(b))) return false;
  }
  for (int64_t b = 0; b < count; b++) store(job, blocks[b], offset + b * kLanes, lanes(b));
  std::copy_n(spikes, channels, feedback.last_spikes + offset);
  return true;
}

template <Regime regime, template <bool> class Fixed>
using Numbers =
    std::conditional_t<regime == Regime::floating, Floating,
                       std::conditional_t<regime == Regime::normed, Normed<Fixed<false>>,
                                          Fixed<regime == Regime::loihi>>>;
template <Regime regime>
using Fast = Numbers<regime, Narrow>;
template <Regime regime>
using Sure = Numbers<regime, Wide>;

template <class E, Regime regime, Kind kind>
const std::string& name_of() {
  static const std::string name = std::string(kind == Kind::recurrent ? "Recurrent" : "") +
                                  E::name + (kind == Kind::dynamics ? "Dynamics" : "") +
                                  (regime == Regime::floating ? "Float"
                                   : regime == Regime::loihi  ? "Loihi"
                                   : regime == Regime::biased ? "Biased"
                                   : regime == Regime::normed ? "Normed"
                                                              : "");
  return name;
}

// A node of a neuron and its calls, wherever they are computed.
template <class E, Regime regime, Kind kind>
class NeuronNode {
 public:
  static const std::string& name() { return name_of<E, regime, kind>(); }

  static constexpr int kNorms = !E::biased                                            ? 0
                                : regime == Regime::normed                            ? 2
                                : regime == Regime::loihi || regime == Regime::biased ? 1
                                                                                      : 0;
  static constexpr bool kFed = kind == Kind::recurrent;
  static constexpr int kCurrents = E::currents;
  static constexpr int kStates = E::states;
  static constexpr int kParameters = static_cast<int>(std::size(E::parameters));
  static constexpr int kWeightsAt = E::currents;
  static constexpr int kSpikesAt = kWeightsAt + (kFed ? 2 * E::currents : 0);
  static constexpr int kParametersAt = kSpikesAt + (kFed ? 1 : 0);
  static constexpr int kStatesAt = kParametersAt + kParameters + kNorms;
  static constexpr int kInputs = kStatesAt + E::states;
  static constexpr int kSequences = kResults<E, kind>;
  static constexpr int kOutputs = kSequences + (kFed ? 1 : 0) + E::states;
  static constexpr ONNXTensorElementDataType kState =
      element_type<typename Sure<regime>::Carried>();

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
    if constexpr (kFed) {  // weights of the file are laid out once, not at every call
      for (int k = 0; k < E::currents; k++) {
        int constant = 0;
        const auto weight =
            info.GetTensorConstantInput(static_cast<size_t>(kWeightsAt + k), &constant);
        if (constant && on_cpu(weight))
          matrix_[k] = std::make_shared<const std::vector<float>>(matrix_of(Input(weight)));
      }
    }
  }

  // What a call has to compute; refuses arguments that do not fit.
  Job<E> job_of(const Ort::KernelContext& context) const {
    const Input x(context, 0);
    Job<E> job = job_of(context, x.shape, 0);
    for (int k = 0; k < E::currents; k++) {
      const Input current(context, static_cast<size_t>(k));
      if (current.shape != x.shape)
        throw CallError("currents differ in shape: " + text(x.shape) + " and " +
                        text(current.shape));
      job.x[k] = current.as<float>();
    }
    return job;
  }

  // A call for currents of a shape, which are not yet there, with all else that it takes and gives.
  // The inputs behind the currents may stand `shift` further behind.
  Job<E> job_of(const Ort::KernelContext& context, const std::vector<int64_t>& shape,
                int shift) const {
    if (shape.size() < 3)
      throw CallError("currents need the axes (T, N, C, ...), got " + text(shape));
    const std::vector<int64_t> plane(shape.begin() + 1, shape.end());
    Job<E> job{};
    job.steps = shape[0];
    job.neurons = job.stride = product(plane);
    job.sample = product(shape, 2);
    job.channels = shape[2];
    job.scale = scale_;
    job.graded = graded_;
    std::copy(std::begin(integer_constant_), std::end(integer_constant_), job.integer_constant);
    std::copy(std::begin(float_constant_), std::end(float_constant_), job.float_constant);
    for (int k = 0; k < kParameters + kNorms; k++) {
      const Input values(context, static_cast<size_t>(kParametersAt + shift + k));
      const int norm = k - kParameters;
      const bool level = norm >= 0 || E::parameters[k < kParameters ? k : 0].level;
      if (values.size != 1 && values.size != job.channels && !(level && values.size == job.sample))
        throw CallError("a parameter of shape " + text(values.shape) +
                        " is neither one value nor one for each of " +
                        std::to_string(job.channels) + " channels");
      if (norm >= 0) {
        job.norm[norm] = values.as<float>();
        job.norm_size[norm] = values.size;
      } else {
        job.parameter[k] = values.as<float>();
        job.parameter_size[k] = values.size;
      }
    }
    for (int k = 0; k < E::states; k++) {
      const Input state(context, static_cast<size_t>(kStatesAt + shift + k));
      if (state.shape != plane)
        throw CallError("a state of shape " + text(state.shape) + " does not fit currents of " +
                        text(shape));
      job.start[k] = state.data;
      auto last = context.GetOutput(static_cast<size_t>(kOutputs - E::states + k), plane);
      job.last[k] = last.GetTensorMutableRawData();
    }
    for (int k = 0; k < kSequences; k++) {
      auto out = context.GetOutput(static_cast<size_t>(k), shape);
      job.out[k] = out.template GetTensorMutableData<float>();
    }
    return job;
  }

  // The feedback of a call; refuses one that does not fit. A matrix that the file does not hold is
  // laid out for this call.
  Feedback<E> feedback_of(const Ort::KernelContext& context, const Job<E>& job) const {
    Feedback<E> feedback;
    const int64_t channels = job.channels;
    if (job.sample != channels)
      throw CallError("feedback needs currents (T, N, C), got " + std::to_string(job.sample) +
                      " neurons of " + std::to_string(channels) + " channels");
    for (int k = 0; k < E::currents; k++) {
      const Ort::ConstValue value = context.GetInput(static_cast<size_t>(kWeightsAt + k));
      const Input weight(value);
      const Input step(context, kWeightsAt + E::currents + k);
      if (weight.size != channels * channels)
        throw CallError("a feedback weight of shape " + text(weight.shape) + " does not join " +
                        std::to_string(channels) + " neurons");
      check_step(step, channels, "channels");
      feedback.gain[k] = step.as<float>();
      feedback.gains[k] = step.size;
      feedback.matrix[k] = matrix_[k];
      if (feedback.matrix[k]) continue;
      if (!on_cpu(value)) throw CallError("feedback weights must be in the processor's memory");
      feedback.matrix[k] = std::make_shared<const std::vector<float>>(matrix_of(weight));
    }
    const Input spikes(context, kSpikesAt);
    const std::vector<int64_t> plane = {channels ? job.neurons / channels : 0, channels};
    if (spikes.shape != plane)
      throw CallError("spikes of shape " + text(spikes.shape) + " do not fit " + text(plane));
    feedback.spikes = spikes.as<float>();
    feedback.last_spikes =
        context.GetOutput(kSequences, plane).template GetTensorMutableData<float>();
    return feedback;
  }

  // Whether the file holds the weights of a current's feedback.
  bool holds(int k) const { return matrix_[k] != nullptr; }

 private:
  static bool on_cpu(const Ort::ConstValue& value) {
    return value.GetTensorMemoryInfo().GetDeviceType() == OrtMemoryInfoDeviceType_CPU;
  }

  // A weight (C, C, ...) as a row of the weights that every neuron feeds.
  static std::vector<float> matrix_of(const Input& weight) {
    const int64_t channels = weight.shape.empty() ? 0 : weight.shape[0];
    if (weight.size != channels * channels)
      throw CallError("a feedback weight of shape " + text(weight.shape) + " is no square");
    std::vector<float> matrix(static_cast<size_t>(weight.size));
    for (int64_t o = 0; o < channels; o++)
      for (int64_t c = 0; c < channels; c++)
        matrix[static_cast<size_t>(c * channels + o)] = element(weight, o * channels + c);
    return matrix;
  }

  // Weights come as floats, or as integers of 4, 8 or 16 bits.
  static float element(const Input& weight, int64_t index) {
    if (weight.type == ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT) return weight.as<float>()[index];
    return static_cast<float>(integer_weight(weight, index, "float, int4, int8 or int16"));
  }

  float scale_ = 1;
  bool graded_ = false;
  int64_t integer_constant_[E::constants + 1] = {};
  float float_constant_[E::constants + 1] = {};
  std::shared_ptr<const std::vector<float>> matrix_[E::currents];  // where the file holds it
};

// Calls that the processor computes.
template <class E, Regime regime, Kind kind>
class NeuronKernel : public NeuronNode<E, regime, kind> {
 public:
  using Node = NeuronNode<E, regime, kind>;
  static constexpr const char* kProvider = nullptr;  // ONNX Runtime's default, the processor
  static constexpr OrtMemType kWeightMemory = OrtMemTypeDefault;

  explicit NeuronKernel(const OrtKernelInfo* info) : Node(Ort::ConstKernelInfo(info)) {}

  // A call whose currents a synapse hands over: the inputs behind them stand `shift` further
  // behind.
  class Behind final : public NeuronCall {
   public:
    Behind(const NeuronKernel& kernel, const Ort::KernelContext& context,
           const std::vector<int64_t>& shape, int shift)
        : job_(kernel.job_of(context, shape, shift)) {}

    void take(int64_t begin, int64_t steps, int64_t first, int count, const float* const* x,
              int64_t stride) const override {
      Job<E> job = job_;
      std::copy_n(x, E::currents, job.x);
      job.stride = stride;
      job.origin = first;
      job.steps = steps;
      job.out[0] += begin * job.neurons;
      if (begin > 0) std::copy(std::begin(job.last), std::end(job.last), job.start);
      NeuronKernel::take(job, first, count);
    }

    void take_all(const Ort::KernelContext& context, const float* const* x) const override {
      Job<E> job = job_;
      std::copy_n(x, E::currents, job.x);
      over_time(context, job);
    }

   private:
    const Job<E> job_;
  };

  OrtStatusPtr ComputeV2(OrtKernelContext* raw) const {
    return guarded(Node::name().c_str(), [&] {
      const Ort::KernelContext context(raw);
      const Job<E> job = this->job_of(context);
      if constexpr (Node::kFed) {
        with_feedback(context, job, this->feedback_of(context, job));
      } else {
        over_time(context, job);
      }
    });
  }

 private:
  template <class A>
  static bool block(const Job<E>& job, int64_t first, int count) {
    if constexpr (kind != Kind::dynamics)  // traces are the same whatever spikes carry
      if (job.graded) return OverTime<E, A, kind, true>::run(job, first, count);
    return OverTime<E, A, kind, false>::run(job, first, count);
  }

  // Take a block of neurons through all of time.
  static void take(const Job<E>& job, int64_t first, int count) {
    if (!block<Fast<regime>>(job, first, count)) block<Sure<regime>>(job, first, count);
  }

  static void over_time(const Ort::KernelContext& context, const Job<E>& job) {
    // blocks of equal size, four at the least where there is enough to share
    int64_t lanes = std::min<int64_t>(kLanes, (job.neurons / 4 + 63) / 64 * 64);
    lanes = std::max<int64_t>(lanes, 64);
    const int64_t blocks = (job.neurons + lanes - 1) / lanes;
    // a thread is worth waking for some microseconds of work
    const int64_t least = (1 << 14) / (lanes * std::max<int64_t>(job.steps, 1)) + 1;
    parallel(context, blocks, least, [&](int64_t from, int64_t to) {
      for (int64_t b = from; b < to; b++) {
        const int64_t first = b * lanes;
        take(job, first, static_cast<int>(std::min(lanes, job.neurons - first)));
      }
    });
  }

  static void with_feedback(const Ort::KernelContext& context, const Job<E>& job,
                            const Feedback<E>& feedback) {
    parallel(context, job.neurons / std::max<int64_t>(job.channels, 1), 1,
             [&](int64_t from, int64_t to) {
               for (int64_t item = from; item < to; item++) {
                 if (!fed<Fast<regime>>(job, feedback, item))
                   fed<Sure<regime>>(job, feedback, item);
               }
             });
  }

  template <class A>
  static bool fed(const Job<E>& job, const Feedback<E>& feedback, int64_t item) {
    if (job.graded) return fed_back<E, A, true>(job, feedback, item);
    return fed_back<E, A, false>(job, feedback, item);
  }
};

template <class Kernel>
struct NeuronOp : Ort::CustomOpBase<NeuronOp<Kernel>, Kernel, true> {
  const char* GetName() const { return Kernel::name().c_str(); }
  const char* GetExecutionProviderType() const { return Kernel::kProvider; }
  size_t GetInputTypeCount() const { return Kernel::kInputs; }
  size_t GetOutputTypeCount() const { return Kernel::kOutputs; }

  ONNXTensorElementDataType GetInputType(size_t i) const {
    if (is_weight(i)) return ONNX_TENSOR_ELEMENT_DATA_TYPE_UNDEFINED;  // any; the kernel looks
    return static_cast<int>(i) >= Kernel::kStatesAt ? Kernel::kState
                                                    : ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT;
  }
  OrtMemType GetInputMemoryType(size_t i) const {
    return is_weight(i) ? Kernel::kWeightMemory : OrtMemTypeDefault;
  }
  ONNXTensorElementDataType GetOutputType(size_t i) const {
    return static_cast<int>(i) >= Kernel::kOutputs - Kernel::kStates
               ? Kernel::kState
               : ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT;
  }

  OrtStatusPtr CreateKernelV2(const OrtApi&, const OrtKernelInfo* info, void** kernel) const {
    return guarded(GetName(), [&] { *kernel = std::make_unique<Kernel>(info).release(); });
  }

  NeuronOp() {
    OrtCustomOp::InferOutputShapeFn = [](const OrtCustomOp*, OrtShapeInferContext* context) {
      return guarded(Kernel::name().c_str(), [&] {
        const Shapes shapes(context);
        for (int k = 0; k < Kernel::kSequences; k++) shapes.copy(0, k);
        if (Kernel::kFed) shapes.copy(Kernel::kSpikesAt, Kernel::kSequences);
        for (int k = 0; k < Kernel::kStates; k++)
          shapes.copy(Kernel::kStatesAt + k, Kernel::kOutputs - Kernel::kStates + k);
      });
    };
  }

 private:
  static bool is_weight(size_t i) {
    const int index = static_cast<int>(i);
    return Kernel::kFed && index >= Kernel::kWeightsAt &&
           index < Kernel::kWeightsAt + Kernel::kCurrents;
  }
};

}  // namespace synapse

#if defined(SYNAPSE_CUDA)
#include "cuda.h"
#endif

namespace synapse {

#if !defined(SYNAPSE_CUDA)
// The kernels of a neuron that this library brings.
template <class E, Regime regime, Kind kind>
using Kernels = std::tuple<NeuronKernel<E, regime, kind>>;

// A neuron as a synapse has it behind itself.
template <class E, Regime regime>
class NeuronBehind final : public Neuron {
 public:
  using Kernel = NeuronKernel<E, regime, Kind::spikes>;

  explicit NeuronBehind(const OrtKernelInfo* info) : kernel_(info) {}

  std::unique_ptr<NeuronCall> call(const Ort::KernelContext& context,
                                   const std::vector<int64_t>& shape, int shift) const override {
    return std::make_unique<typename Kernel::Behind>(kernel_, context, shape, shift);
  }

 private:
  const Kernel kernel_;
};
#endif

// Registers all kernels of an equation, in the regimes that it is for.
template <class E, Regime... regimes>
struct RegisterNeuron {
  RegisterNeuron() { (of_regime<regimes>(), ...); }

 private:
  template <Regime regime>
  static void of_regime() {
    add(static_cast<Kernels<E, regime, Kind::spikes>*>(nullptr));
#if !defined(SYNAPSE_CUDA)
    using Node = NeuronNode<E, regime, Kind::spikes>;
    behind_dense({Node::name(), E::currents, Node::kInputs - E::currents, E::states, Node::kState,
                  [](const OrtKernelInfo* info) -> std::unique_ptr<Neuron> {
                    return std::make_unique<NeuronBehind<E, regime>>(info);
                  }});
#endif
    if constexpr (regime != Regime::biased && regime != Regime::normed) {
      add(static_cast<Kernels<E, regime, Kind::dynamics>*>(nullptr));
      add(static_cast<Kernels<E, regime, Kind::recurrent>*>(nullptr));
    }
  }
  template <class... Kernel>
  static void add(std::tuple<Kernel...>*) {
    (add_one<Kernel>(), ...);
  }
  template <class Kernel>
  static void add_one() {
    static const NeuronOp<Kernel> op;
    Register(op, Kernel::name().c_str());
  }
};

}  // namespace synapse
