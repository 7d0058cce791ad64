// Dense synapses with float weights, without and with a bias and a neuron (fused.h):
//
//   y[t, n, o] = sum_c weight[o, c] * x[t, n, c] + bias[o].
//
// Most inputs of a spiking layer are silent, so the weights of those that are not are added. Rows
// with many events are a product of all inputs, with the same sums (float_tiles.h). A call with a
// weight that is infinite or NaN, or no constant, is a product by ONNX Runtime, whose order is its
// own; so is one with many events on a processor without AVX2.
#pragma once

#include <algorithm>
#include <memory>
#include <utility>
#include <vector>

#include "base/call.h"
#include "base/memory.h"
#include "base/op.h"
#include "dense/dense.h"
#include "dense/float_rows.h"
#include "dense/float_tiles.h"
#include "dense/rows.h"

namespace synapse {

// With this attribute a weight is (C, O), as that of a MatMul. No file has it.
constexpr const char* kInputsFirst = "inputs_first";

// `biased`: a bias for each part lies behind the weights. One of size 0 is none.
template <int parts, bool biased>
class FloatDense {
 public:
  static constexpr const char* kName = parts == 1 ? "Dense" : "ComplexDense";
  static constexpr int kParts = parts, kInputs = 1 + (biased ? 2 : 1) * parts, kTile = kFloatTile;
  using Rows = FloatRows;

  static Types input_types() { return Types(kInputs, kFloat); }
  static void infer_currents(const ShapeInference& shapes, int part = 0) {
    shapes.replace_last(0, 1 + part, part, shapes.flag(kTimeLast), shapes.flag(kInputsFirst));
  }

  explicit FloatDense(const OrtKernelInfo* info)
      : time_last_(flag(Ort::ConstKernelInfo(info), kTimeLast)),
        inputs_first_(flag(Ort::ConstKernelInfo(info), kInputsFirst)),
        product_(info, inputs_first_ ? "MatMul" : "Gemm", 13, operator_attributes()) {
    for (int k = 0; k < parts; k++)
      if (const auto value = constant_input(info, 1 + k))
        weights_[k] = std::make_shared<const FloatWeights>(Input(value), inputs_first_, true);
  }

  // The arguments of a call. A row is one time step of one sample: row t * samples + n. An input
  // (T, N, L, C) has N * L samples, and one of (rows, C) has one.
  struct Call {
    Input x;
    bool time_last = false;
    int64_t steps = 0, samples = 0, inputs = 0, outputs = 0;  // outputs of the first part
    std::shared_ptr<const FloatWeights> weight[parts];
    const float* values[parts] = {};  // of the weights, as they come
    const float* bias[parts] = {};    // null where there is none

    explicit Call(Input input) : x(std::move(input)) {}

    int64_t rows() const { return steps * samples; }
    Shape currents() const {
      if (time_last) return {steps, samples, outputs};
      Shape shape = x.shape;
      shape.back() = outputs;
      return shape;
    }
  };

  Call open(const Ort::KernelContext& context) const {
    Call call(Input(context, 0));
    const auto& shape = call.x.shape;
    if (shape.empty() || (time_last_ && shape.size() != 3))
      throw CallError("the input needs the axes ", time_last_ ? "(N, C, T)" : "(T, N, C)", ", got ",
                      shape);
    call.time_last = time_last_;
    call.inputs = time_last_ ? shape[1] : shape.back();
    if (time_last_) {
      call.steps = shape[2];
      call.samples = shape[0];
    } else if (shape.size() > 1) {
      call.steps = shape[0];
      call.samples = product({shape.begin() + 1, shape.end() - 1});
    } else {
      call.steps = call.samples = 1;  // a vector
    }
    for (int k = 0; k < parts; k++) {
      const Input weight(context, 1 + k);
      call.values[k] = weight.as<float>();
      call.weight[k] = weights_[k];
      if (!call.weight[k])
        call.weight[k] = std::make_shared<const FloatWeights>(weight, inputs_first_, false);
      if (call.weight[k]->inputs != call.inputs)
        throw CallError("a weight for ", call.weight[k]->inputs,
                        " inputs does not fit an input of ", shape);
      if (!biased) continue;
      const Input bias(context, 1 + parts + k);
      if (bias.size != 0 && bias.size != call.weight[k]->outputs)
        throw CallError("a bias of shape ", bias.shape, " is not one number for each of ",
                        call.weight[k]->outputs, " outputs");
      call.bias[k] = bias.size ? bias.as<float>() : nullptr;
    }
    call.outputs = call.weight[0]->outputs;
    return call;
  }

  // What is known before any input is read: no event may be left out where a weight is not finite,
  // and laying out weights that change takes longer than a product.
  bool may_add(const Call& call) const {
    return std::all_of(call.weight, call.weight + parts, [&](const auto& weight) {
      return weight->finite && weight == weights_[&weight - call.weight];
    });
  }

  // Whether events, out of so many inputs, are added one by one: an event takes about twice the
  // time of an input in a product (docs/performance.md).
  static bool few(int64_t events, int64_t inputs) { return events <= inputs * 2 / 5; }

  // Whether some pieces are summed here. A product of few rows would read all weights for them.
  static bool by_events(const Call& call, const FloatRows* pieces, int64_t count) {
    if (FloatTileSums::takes_all()) return true;
    int64_t events = 0, rows = 0;
    for (int64_t i = 0; i < count; i++) {
      events += pieces[i].events();
      rows += pieces[i].size();
    }
    return rows <= 4 || few(events, rows * call.inputs);
  }

  static int64_t rows_at_once(int64_t rows, int64_t line) {
    return Dense<parts>::rows_at_once(rows, line);
  }

  // Reads the events of `count` rows from `first` on, `stride` rows apart. With time_last these
  // rows must be steps of one sample.
  void read(const Call& call, int64_t first, int64_t stride, int64_t count,
            FloatRows* piece) const {
    const float* x = call.x.template as<float>();
    const int64_t inputs = call.inputs;
    if (!call.time_last) return add(x + first * inputs, stride * inputs, inputs, count, piece);
    const auto scratch = scratch_.borrow([&](const Scratch& kept) { return kept.inputs == inputs; },
                                         [&] { return std::make_unique<Scratch>(inputs); });
    x += first % call.samples * inputs * call.steps + first / call.samples;
    TimeLastSpikes& spikes = scratch->spikes;
    if (spikes.read(x, call.steps, count)) {
      int64_t events = 0;
      for (int64_t t = 0; t < count; t++) events += spikes.count(t);
      if (!FloatTileSums::takes_all() || few(events, count * inputs)) {
        for (int64_t t = 0; t < count; t++) piece->add_spikes(spikes.begin(t), spikes.count(t));
        return;
      }
    }
    float* turned = piece->room_for_all(count * inputs);
    transpose(x, call.steps, inputs, count, turned, inputs);
    add(turned, inputs, inputs, count, piece);
  }

  // Sums `width` outputs of a tile, from output o on: kTile numbers for each row of a piece.
  void sums(const Call& call, int part, const FloatRows& piece, int64_t o, int width,
            float* out) const {
    alignas(64) float bias[kFloatTile] = {};
    if (call.bias[part]) std::copy_n(call.bias[part] + o, width, bias);
    const FloatWeights& weight = *call.weight[part];
    FloatTileSums{piece, weight.tile(o), weight.inputs, call.bias[part] ? bias : nullptr, out}.run(
        weight.lanes(o));
  }

  // Computes all outputs (T, N, O) of each part as one product.
  void run(const Ort::KernelContext& context, const Call& call, float* const* y) const {
    const int64_t inputs = call.inputs, outputs = call.outputs, rows = call.rows();
    if (rows * outputs == 0) return;
    const float* x = call.x.template as<float>();
    std::vector<float> turned;
    if (call.time_last && call.steps > 1) {
      turned.resize(rows * inputs);
      parallel(context, call.samples, 1, [&](int64_t from, int64_t to) {
        for (int64_t n = from; n < to; n++)
          transpose(x + n * inputs * call.steps, call.steps, inputs, call.steps,
                    turned.data() + n * inputs, call.samples * inputs);
      });
      x = turned.data();
    }
    for (int k = 0; k < parts; k++) {
      if (inputs == 0) {  // a product without inputs is 0
        std::fill_n(y[k], rows * outputs, 0.0f);
      } else {
        const Shape shape = inputs_first_ ? Shape{inputs, outputs} : Shape{outputs, inputs};
        product_.run(context, {x, {rows, inputs}}, {call.values[k], shape}, y[k], {rows, outputs});
      }
      if (const float* bias = call.bias[k])
        parallel(context, rows, (1 << 14) / outputs + 1, [&](int64_t from, int64_t to) {
          for (int64_t r = from; r < to; r++) {
            float* row = y[k] + r * outputs;
            SYNAPSE_INDEPENDENT
            for (int64_t o = 0; o < outputs; o++) row[o] += bias[o];
          }
        });
    }
  }

 private:
  struct Scratch {
    int64_t inputs;
    TimeLastSpikes spikes;

    explicit Scratch(int64_t count) : inputs(count), spikes(count) {}
  };

  // Adds rows, `stride` numbers apart: their events, or all inputs where these are many.
  static void add(const float* x, int64_t stride, int64_t inputs, int64_t count, FloatRows* piece) {
    if (FloatTileSums::takes_all()) {
      int64_t events = 0;
      for (int64_t r = 0; r < count; r++) events += CountEvents::run(x + r * stride, inputs);
      if (!few(events, count * inputs)) return piece->add_all(x, stride, count);
    }
    for (int64_t r = 0; r < count; r++) piece->add(x + r * stride, inputs);
  }

  // to[t * to_stride + c] = from[c * stride + t], in blocks that stay in a cache.
  static void transpose(const float* from, int64_t stride, int64_t inputs, int64_t steps, float* to,
                        int64_t to_stride) {
    constexpr int64_t each = 16;
    for (int64_t c = 0; c < inputs; c += each)
      for (int64_t t = 0; t < steps; t += each)
        for (int64_t i = c; i < std::min(c + each, inputs); i++)
          for (int64_t j = t; j < std::min(t + each, steps); j++)
            to[j * to_stride + i] = from[i * stride + j];
  }

  // ONNX Runtime's Gemm multiplies by weights (O, C) as they are. It copies the attributes, and has
  // no defaults for them here.
  std::vector<Ort::OpAttr> operator_attributes() const {
    std::vector<Ort::OpAttr> all;
    if (inputs_first_) return all;
    const int64_t no = 0, yes = 1;
    const float one = 1.0f;
    all.emplace_back("transA", &no, 1, ORT_OP_ATTR_INT);
    all.emplace_back("transB", &yes, 1, ORT_OP_ATTR_INT);
    all.emplace_back("alpha", &one, 1, ORT_OP_ATTR_FLOAT);
    all.emplace_back("beta", &one, 1, ORT_OP_ATTR_FLOAT);
    return all;
  }

  const bool time_last_, inputs_first_;
  const FloatOperator product_;
  mutable ScratchPool<Scratch> scratch_;
  std::shared_ptr<const FloatWeights> weights_[parts];
};

}  // namespace synapse
