// Dense synapses with integer weights, without and with a neuron (fused.h):
//
//   y[t, n, o] = scale[o] * sum_c weight[o, c] * x[t, n, c],
//
// plus bias[o] in the biased forms.
//
// Integer inputs are summed as integers, and the other rows go through ONNX Runtime's MatMul. A
// tile of outputs is summed over many rows before the next one, so that its weights stay in a
// cache.
#pragma once

#include <algorithm>
#include <memory>
#include <utility>
#include <vector>

#include "base/call.h"
#include "base/memory.h"
#include "base/op.h"
#include "dense/rows.h"
#include "dense/tiles.h"
#include "synapse/events.h"

namespace synapse {

// With this attribute the input is (N, C, T), and the outputs are (T, N, O) as always. No file has
// it: `Session` sets it where it removes a file's Transpose to (T, N, C), which ONNX Runtime does
// on one thread, because only dense synapses read the input.
constexpr const char* kTimeLast = "time_last";

// The kernel of a synapse without a neuron, and what a fused one uses of it.
template <int parts, bool biased = false>
class Dense : public Kernel {
  static_assert(parts == 1 || !biased);

 public:
  static constexpr const char* kName = biased       ? "QuantizedBiasedDense"
                                       : parts == 1 ? "QuantizedDense"
                                                    : "QuantizedComplexDense";
  static constexpr int kParts = parts, kBiases = biased, kInputs = 1 + 2 * parts + biased,
                       kTile = kTileOutputs;
  static constexpr ONNXTensorElementDataType kInput = kAny;
  using Rows = EventRows;

  static Types input_types() {
    Types types(kInputs, kFloat);
    std::fill_n(types.begin(), 1 + parts, kAny);
    return types;
  }

  static void infer(const ShapeInference& shapes) {
    for (int k = 0; k < parts; k++) shapes.replace_last(0, 1 + k, k, shapes.flag(kTimeLast));
  }
  // The shape of a fused neuron's output.
  static void infer_currents(const ShapeInference& shapes) {
    shapes.replace_last(0, 1, 0, shapes.flag(kTimeLast));
  }

  explicit Dense(const OrtKernelInfo* info)
      : time_last_(flag(Ort::ConstKernelInfo(info), kTimeLast)), matmul_(info, "MatMul", 13, {}) {
    for (int k = 0; k < parts; k++)
      if (const auto value = constant_input(info, 1 + k))
        weights_[k] = std::make_shared<const DenseWeights>(Input(value));
  }

  void compute(const Ort::KernelContext& context) const override {
    const Call call = open(context);
    float* y[parts];
    for (int k = 0; k < parts; k++)
      y[k] = float_output(context, k, {call.steps, call.samples, call.weight[k]->outputs});
    run(context, call, y);
  }

  // The arguments of a call. A row is one time step of one sample: row t * samples + n.
  struct Call {
    Input x;
    bool bytes = false, time_last = false;
    int64_t steps = 0, samples = 0, inputs = 0, outputs = 0;  // outputs of the largest part
    std::shared_ptr<const DenseWeights> weight[parts];
    WeightScale scale[parts] = {};
    const float* bias = nullptr;  // of the only part

    explicit Call(Input input) : x(std::move(input)) {}

    int64_t rows() const { return steps * samples; }
    Shape currents() const { return {steps, samples, outputs}; }
    int64_t stride() const { return time_last ? steps : 1; }
    int64_t begin(int64_t row) const {
      return time_last ? row % samples * inputs * steps + row / samples : row * inputs;
    }
    // the relative cost of a row, for the split into threads
    int64_t work() const { return 1 + inputs / 4 + inputs * outputs / 256; }

    TileOutput target(int part, int64_t first, int count, float* out) const {
      return {first, count, scale[part].from(first), bias ? bias + first : nullptr, out};
    }
  };

  Call open(const Ort::KernelContext& context) const {
    Call call(Input(context, 0));
    const auto& shape = call.x.shape;
    if (shape.size() != 3)
      throw CallError("the input needs the axes ", time_last_ ? "(N, C, T)" : "(T, N, C)", ", got ",
                      shape);
    call.bytes = call.x.type == kUint8;
    if (!call.bytes && call.x.type != kFloat) throw CallError("the input must be float32 or uint8");
    call.steps = shape[time_last_ ? 2 : 0];
    call.samples = shape[time_last_ ? 0 : 1];
    call.inputs = shape[time_last_ ? 1 : 2];
    call.time_last = time_last_ && call.steps != 1;  // a single step lies the same way
    for (int k = 0; k < parts; k++) {
      call.weight[k] = weights_[k];
      if (!call.weight[k])
        call.weight[k] = std::make_shared<const DenseWeights>(Input(context, 1 + k));
      const DenseWeights& weight = *call.weight[k];
      if (weight.inputs != call.inputs)
        throw CallError("a weight for ", weight.inputs, " inputs does not fit an input of ", shape);
      call.scale[k] = weight_scale(Input(context, 1 + parts + k), weight.outputs, "outputs");
      call.outputs = std::max(call.outputs, weight.outputs);
    }
    if constexpr (biased) {
      const Input bias(context, 1 + 2 * parts);
      if (bias.size != call.outputs)
        throw CallError("a bias of shape ", bias.shape, " does not fit ", call.outputs, " outputs");
      call.bias = bias.as<float>();
    }
    return call;
  }

  // Reads the events of `count` rows from `first` on, `stride` rows apart. With time_last these
  // rows must be steps of one sample.
  void read(const Call& call, int64_t first, int64_t stride, int64_t count,
            EventRows* piece) const {
    if (call.bytes) {
      read(call, call.x.template as<uint8_t>(), first, stride, count, piece);
    } else {
      read(call, call.x.template as<float>(), first, stride, count, piece);
    }
  }

  // Whether the events of some pieces are added: where all inputs are integers. `may_add` says what
  // is known before any input is read.
  static bool may_add(const Call&) { return true; }
  static bool by_events(const Call&, const EventRows* pieces, int64_t count) {
    return std::all_of(pieces, pieces + count,
                       [](const EventRows& piece) { return piece.integers(); });
  }

  // Sums `width` outputs of a tile, from output o on: kTile numbers for each row of a piece.
  void sums(const Call& call, int part, const EventRows& piece, int64_t o, int width,
            float* out) const {
    for (int64_t r = 0; r < piece.size(); r++, out += kTile)
      call.weight[part]->sums(piece.row(r), call.target(part, o, width, out));
  }

  // Computes all outputs (T, N, O) of each part.
  void run(const Ort::KernelContext& context, const Call& call, float* const* y) const {
    // 1 for every row with inputs that are no integers
    std::vector<uint8_t> other(call.rows(), 0);
    // A line is a sequence of rows that can be read together: all rows, or with time_last the steps
    // of one sample.
    const int64_t line = call.time_last ? call.steps : call.rows();
    const int64_t lines = call.time_last ? call.samples : 1;
    const int64_t stride = call.time_last ? call.samples : 1;
    const int64_t each = rows_at_once(call.rows(), line);
    const int64_t pieces = (line + each - 1) / each;
    const int64_t least = (1 << 15) / (call.work() * each) + 1;
    parallel(context, lines * pieces, least, [&](int64_t from, int64_t to) {
      const auto loan = pieces_.borrow([](const EventRows&) { return true; },
                                       [] { return std::make_unique<EventRows>(); });
      EventRows& piece = *loan;
      for (int64_t i = from; i < to; i++) {
        const int64_t begin = i % pieces * each, count = std::min(each, line - begin);
        const int64_t first = i / pieces + begin * stride;
        piece.clear();
        read(call, first, stride, count, &piece);
        for (int k = 0; k < parts; k++) {
          const int64_t outputs = call.weight[k]->outputs;
          for (int64_t o = 0; o < outputs; o += kTileOutputs) {
            const int width = static_cast<int>(std::min<int64_t>(kTileOutputs, outputs - o));
            for (int64_t r = 0; r < count; r++) {
              float* out = y[k] + (first + r * stride) * outputs + o;
              call.weight[k]->sums(piece.row(r), call.target(k, o, width, out));
            }
          }
        }
        for (int64_t r = 0; r < count; r++) other[first + r * stride] = !piece.integers(r);
      }
    });
    if (std::find(other.begin(), other.end(), 1) == other.end()) return;
    for (int k = 0; k < parts; k++) run_floats(context, call, k, other, y[k]);
  }

  // How many rows of a line are read together.
  static int64_t rows_at_once(int64_t rows, int64_t line) {
    const int64_t fair = (rows + 7) / 8;  // enough pieces for several threads
    const int64_t even = (std::max(fair, int64_t{1}) + 15) / 16 * 16;
    return std::max(int64_t{1}, std::min({TimeLastSpikes::kSteps, even, line}));
  }

 private:
  struct Scratch {
    int64_t inputs;
    Events events;
    std::unique_ptr<TimeLastSpikes> time_last;  // made when it is first needed

    explicit Scratch(int64_t count) : inputs(count), events(count) {}
  };

  template <class X>
  void read(const Call& call, const X* x, int64_t first, int64_t stride, int64_t count,
            EventRows* piece) const {
    const int64_t inputs = call.inputs;
    const auto scratch = scratch_.borrow([&](const Scratch& kept) { return kept.inputs == inputs; },
                                         [&] { return std::make_unique<Scratch>(inputs); });
    Events& events = scratch->events;
    if (!call.time_last) {
      for (int64_t r = 0; r < count; r++) {
        events.read(x + call.begin(first + r * stride), inputs);
        piece->add(events);
      }
      return;
    }
    if (!scratch->time_last) scratch->time_last = std::make_unique<TimeLastSpikes>(inputs);
    const X* begin = x + call.begin(first);
    if (scratch->time_last->read(begin, call.steps, count)) {
      for (int64_t t = 0; t < count; t++)
        piece->add_spikes(scratch->time_last->begin(t), scratch->time_last->count(t));
      return;
    }
    std::vector<X> row(inputs);
    for (int64_t t = 0; t < count; t++) {
      for (int64_t c = 0; c < inputs; c++) row[c] = begin[c * call.steps + t];
      events.read(row.data(), inputs);
      piece->add(events);
    }
  }

  // Computes the rows with inputs that are no integers by ONNX Runtime's MatMul of floats.
  void run_floats(const Ort::KernelContext& context, const Call& call, int part,
                  const std::vector<uint8_t>& other, float* y) const {
    const DenseWeights& weight = *call.weight[part];
    const int64_t inputs = weight.inputs, outputs = weight.outputs;
    std::vector<float> weights(inputs * outputs);
    for (int64_t c = 0; c < inputs; c++)
      for (int64_t o = 0; o < outputs; o++)
        weights[c * outputs + o] = static_cast<float>(weight.at(c, o));
    std::vector<int64_t> rows;
    for (int64_t r = 0; r < call.rows(); r++)
      if (other[r]) rows.push_back(r);
    const int64_t height = static_cast<int64_t>(rows.size()), stride = call.stride();
    std::vector<float> values(height * inputs);
    const auto copy = [&](const auto* x) {
      for (int64_t i = 0; i < height; i++) {
        const auto* row = x + call.begin(rows[i]);
        for (int64_t c = 0; c < inputs; c++) values[i * inputs + c] = row[c * stride];
      }
    };
    call.bytes ? copy(call.x.template as<uint8_t>()) : copy(call.x.template as<float>());
    std::vector<float> products(height * outputs);
    matmul_.run(context, {values.data(), {height, inputs}}, {weights.data(), {inputs, outputs}},
                products.data(), {height, outputs});
    for (int64_t i = 0; i < height; i++)
      for (int64_t o = 0; o < outputs; o++) {
        const float scaled = products[i * outputs + o] * call.scale[part][o];
        y[rows[i] * outputs + o] = biased ? scaled + call.bias[o] : scaled;
      }
  }

  const bool time_last_;
  const FloatOperator matmul_;
  mutable ScratchPool<Scratch> scratch_;
  mutable ScratchPool<EventRows> pieces_;
  std::shared_ptr<const DenseWeights> weights_[parts];
};

}  // namespace synapse
