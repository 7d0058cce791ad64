// A dense synapse and its neuron in one kernel, whatever the synapse's weights are.
#pragma once

#include <algorithm>
#include <memory>
#include <utility>
#include <vector>

#include "base/memory.h"
#include "base/op.h"
#include "neuron/fusion.h"

namespace synapse {

// the most steps, inputs and samples that are computed at a time
constexpr int64_t kMostSteps = 1024, kMostInputs = 1 << 23, kMostSamples = 16;

// fewer tiles than these are summed in several pieces of time, so that all threads have work
constexpr int64_t kFewTiles = 8;

// A dense synapse fused with its neuron. No file has these ops: `Session` fuses two nodes into one
// where nothing else reads the currents. Integer weights give the spikes of the two nodes, to the
// last bit; float weights do where both sum in the same way (float_dense.h).
//
// Some steps of some samples are computed at a time. The events of all inputs are read first. Then
// a tile of outputs is summed for one sample, and its neurons go through these steps while their
// currents are still in a cache.
//
// `Synapse`, such as Dense<1>, opens a call, reads the events of a piece of its rows, says whether
// they are added (`by_events`), sums a tile of outputs of a piece, and computes the currents of all
// rows at once where events are not added (`run`).
template <class Synapse>
class DenseNeuronKernel : public Kernel {
 public:
  DenseNeuronKernel(const OrtKernelInfo* info, FusedNeuron neuron)
      : dense_(info), neuron_(std::move(neuron)) {}

  void compute(const Ort::KernelContext& context) const override {
    const auto call = dense_.open(context);
    for (int k = 1; k < parts; k++)
      if (call.weight[k]->outputs != call.outputs)
        throw CallError("weights for ", call.weight[0]->outputs, " and ", call.weight[k]->outputs,
                        " outputs");
    const auto neurons = neuron_(context, call.currents(), kShift);
    if (dense_.may_add(call) && by_tiles(context, call, *neurons)) return;
    // the currents of all rows become one tensor
    const int64_t size = call.rows() * call.outputs;
    const auto currents = borrow(neurons->currents(0) ? 0 : parts * size);
    float* y[parts];
    for (int k = 0; k < parts; k++) {
      float* place = neurons->currents(k);
      y[k] = place ? place : currents->data() + k * size;
    }
    dense_.run(context, call, y);
    neurons->run_all(context, y);
  }

 private:
  static constexpr int parts = Synapse::kParts, kTile = Synapse::kTile;
  static constexpr int kShift = Synapse::kInputs - parts;
  using Call = typename Synapse::Call;
  using Currents = AlignedVector<float>;
  using Pieces = std::vector<typename Synapse::Rows>;

  // False where the events are not to be added. Whatever has been written then is overwritten by
  // the caller.
  bool by_tiles(const Ort::KernelContext& context, const Call& call,
                const FusedNeuronCall& neurons) const {
    const int64_t steps = std::max(int64_t{1}, std::min(call.steps, kMostSteps));
    const int64_t samples = std::clamp(kMostInputs / std::max(steps * call.inputs, int64_t{1}),
                                       int64_t{1}, kMostSamples);
    const auto pieces = pieces_.borrow([](const Pieces&) { return true; },
                                       [] { return std::make_unique<Pieces>(); });
    int64_t begin = 0;
    do {  // also runs for no steps, to copy the states
      const int64_t count = std::min(steps, call.steps - begin);
      for (int64_t n = 0; n < call.samples; n += samples) {
        const Block block{begin, count, n, std::min(samples, call.samples - n)};
        if (!read(context, call, block, pieces.get())) return false;
        run(context, call, block, *pieces, neurons);
      }
      begin += count;
    } while (begin < call.steps);
    return true;
  }

  // Some steps of some samples.
  struct Block {
    int64_t begin, steps, first, samples;

    int64_t each() const { return Synapse::rows_at_once(steps * samples, steps); }
    int64_t pieces() const { return (steps + each() - 1) / each(); }
  };

  bool read(const Ort::KernelContext& context, const Call& call, const Block& block,
            Pieces* pieces) const {
    const int64_t each = block.each(), count = block.pieces();
    const int64_t total = block.samples * count;
    if (static_cast<int64_t>(pieces->size()) < total) pieces->resize(total);
    parallel(
        context, total, (1 << 16) / (each * (1 + call.inputs)) + 1, [&](int64_t from, int64_t to) {
          for (int64_t i = from; i < to; i++) {
            const int64_t n = block.first + i / count, t = i % count * each;
            const int64_t steps = std::min(each, block.steps - t);
            auto& piece = (*pieces)[i];
            piece.clear();
            dense_.read(call, (block.begin + t) * call.samples + n, call.samples, steps, &piece);
          }
        });
    return Synapse::by_events(call, pieces->data(), total);
  }

  // Sums the tiles of a block, and takes their neurons through its steps.
  void run(const Ort::KernelContext& context, const Call& call, const Block& block,
           const Pieces& pieces, const FusedNeuronCall& neurons) const {
    const int64_t tiles = (call.outputs + kTile - 1) / kTile;
    const int64_t shares = block.samples * tiles, count = block.pieces();
    const int64_t size = kTile * block.steps;  // of the currents of one part of a tile
    const int64_t work = 1 + block.steps * (1 + call.inputs / 2);

    const auto sum = [&](int64_t i, int64_t p, float* currents) {
      const int64_t o = i % tiles * kTile;
      const int width = static_cast<int>(std::min<int64_t>(kTile, call.outputs - o));
      for (int k = 0; k < parts; k++)
        dense_.sums(call, k, pieces[i / tiles * count + p], o, width,
                    currents + k * size + p * block.each() * kTile);
    };
    const auto run_neurons = [&](int64_t i, const float* currents) {
      const int64_t n = block.first + i / tiles, o = i % tiles * kTile;
      const float* x[parts];
      for (int k = 0; k < parts; k++) x[k] = currents + k * size;
      neurons.run(block.begin, block.steps, n * call.outputs + o,
                  static_cast<int>(std::min<int64_t>(kTile, call.outputs - o)), x, kTile);
    };

    if (shares < kFewTiles && count > 1) {
      const auto currents = borrow(shares * parts * size);
      const auto at = [&](int64_t i) { return currents->data() + i * parts * size; };
      parallel(context, shares * count, (1 << 15) * count / work + 1,
               [&](int64_t from, int64_t to) {
                 for (int64_t j = from; j < to; j++) sum(j / count, j % count, at(j / count));
               });
      parallel(context, shares, (1 << 7) / block.steps + 1, [&](int64_t from, int64_t to) {
        for (int64_t i = from; i < to; i++) run_neurons(i, at(i));
      });
      return;
    }
    parallel(context, shares, (1 << 15) / work + 1, [&](int64_t from, int64_t to) {
      const auto currents = borrow(parts * size);
      for (int64_t i = from; i < to; i++) {
        for (int64_t p = 0; p < count; p++) sum(i, p, currents->data());
        run_neurons(i, currents->data());
      }
    });
  }

  typename ScratchPool<Currents>::Loan borrow(int64_t size) const {
    return currents_.borrow([&](const Currents& kept) { return kept.size() >= size; },
                            [&] { return std::make_unique<Currents>(size); });
  }

  const Synapse dense_;
  const FusedNeuron neuron_;
  mutable ScratchPool<Pieces> pieces_;
  mutable ScratchPool<Currents> currents_;
};

// In the place of neurons: the currents are the outputs.
template <int parts>
class CurrentsOut final : public FusedNeuronCall {
 public:
  CurrentsOut(const Ort::KernelContext& context, const Shape& shape) : neurons_(product(shape, 1)) {
    for (int k = 0; k < parts; k++) out_[k] = float_output(context, k, shape);
  }

  void run(int64_t begin, int64_t steps, int64_t first, int count, const float* const* x,
           int64_t stride) const override {
    for (int k = 0; k < parts; k++)
      for (int64_t t = 0; t < steps; t++)
        std::copy_n(x[k] + t * stride, count, out_[k] + (begin + t) * neurons_ + first);
  }

  float* currents(int part) const override { return out_[part]; }
  void run_all(const Ort::KernelContext&, const float* const*) const override {}

 private:
  int64_t neurons_;
  float* out_[parts];
};

// The op of a dense synapse alone, by the same kernel.
template <class Synapse>
Declaration dense_alone(const std::string& name = Synapse::kName) {
  constexpr int parts = Synapse::kParts;
  const auto infer = [](const ShapeInference& shapes) {
    for (int k = 0; k < parts; k++) Synapse::infer_currents(shapes, k);
  };
  const auto make = [](const OrtKernelInfo* info) {
    return std::make_unique<DenseNeuronKernel<Synapse>>(
        info, [](const Ort::KernelContext& context, const Shape& shape, int) {
          return std::make_unique<CurrentsOut<parts>>(context, shape);
        });
  };
  return {name, Synapse::input_types(), Types(parts, kFloat), infer, make};
}

// The op of a dense synapse and its neuron: the inputs of the synapse, then those of the neuron,
// without its currents.
template <class Synapse>
Declaration dense_and(const Declaration& neuron, FusedNeuron (*make)(const OrtKernelInfo*)) {
  constexpr int parts = Synapse::kParts;
  Types inputs = Synapse::input_types();
  inputs.insert(inputs.end(), neuron.inputs.begin() + parts, neuron.inputs.end());
  const int states = static_cast<int>(neuron.outputs.size()) - 1;
  const int states_at = static_cast<int>(inputs.size()) - states;
  const auto infer = [=](const ShapeInference& shapes) {
    Synapse::infer_currents(shapes);
    for (int k = 0; k < states; k++) shapes.copy(states_at + k, 1 + k);
  };
  const auto make_fused = [make](const OrtKernelInfo* info) {
    return std::make_unique<DenseNeuronKernel<Synapse>>(info, make(info));
  };
  Declaration op{Synapse::kName + ("And" + neuron.name), inputs, neuron.outputs, infer, make_fused};
  op.fused = true;
  return op;
}

}  // namespace synapse
