// Dense synapses with integer weights, and the same fused with their neurons: see dense/dense.h.
#include <algorithm>
#include <atomic>
#include <memory>
#include <utility>
#include <vector>

#include "base/memory.h"
#include "base/op.h"
#include "dense/dense.h"
#include "neuron/fusion.h"

namespace synapse {
namespace {

const RegisterSynapse<Dense<1>> real;
const RegisterSynapse<Dense<2>> complex;
const RegisterSynapse<Dense<1, true>> biased;

// the most steps, inputs and samples that are computed at a time
constexpr int64_t kMostSteps = 1024, kMostInputs = 1 << 23, kMostSamples = 16;

// fewer tiles than these are summed in several pieces of time, so that all threads have work
constexpr int64_t kFewTiles = 8;

// A dense synapse fused with its neuron; the spikes equal those of the two nodes. No file has these
// ops: `Session` fuses two nodes into one where nothing else reads the currents.
//
// Some steps of some samples are computed at a time. The events of all inputs are read first. Then
// a tile of outputs is summed for one sample, and its neurons go through these steps while their
// currents are still in a cache.
template <int parts, bool biased>
class DenseNeuronKernel : public Kernel {
 public:
  DenseNeuronKernel(const OrtKernelInfo* info, FusedNeuron neuron)
      : dense_(info), neuron_(std::move(neuron)) {}

  void compute(const Ort::KernelContext& context) const override {
    const auto call = dense_.open(context);
    const int64_t outputs = call.weight[0]->outputs;
    for (int k = 1; k < parts; k++)
      if (call.weight[k]->outputs != outputs)
        throw CallError("weights for ", outputs, " and ", call.weight[k]->outputs, " outputs");
    const auto neurons = neuron_(context, {call.steps, call.samples, outputs}, kShift);
    if (by_tiles(context, call, *neurons)) return;
    // inputs that are no integers: the currents of all rows become one tensor
    std::vector<float> currents[parts];
    float* y[parts];
    for (int k = 0; k < parts; k++) {
      currents[k].resize(call.rows() * outputs);
      y[k] = currents[k].data();
    }
    dense_.run(context, call, y);
    neurons->run_all(context, y);
  }

 private:
  static constexpr int kShift = Dense<parts, biased>::kInputs - parts;
  using Call = typename Dense<parts, biased>::Call;
  using Currents = AlignedVector<float>;
  using Pieces = std::vector<EventRows>;

  // False where an input is no integer. Whatever has been written then is overwritten by the
  // caller.
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

    int64_t each() const { return Dense<parts, biased>::rows_at_once(steps * samples, steps); }
    int64_t pieces() const { return (steps + each() - 1) / each(); }
  };

  bool read(const Ort::KernelContext& context, const Call& call, const Block& block,
            Pieces* pieces) const {
    const int64_t each = block.each(), count = block.pieces();
    const int64_t total = block.samples * count;
    if (static_cast<int64_t>(pieces->size()) < total) pieces->resize(total);
    std::atomic<bool> integers{true};
    parallel(
        context, total, (1 << 16) / (each * (1 + call.inputs)) + 1, [&](int64_t from, int64_t to) {
          for (int64_t i = from; i < to; i++) {
            const int64_t n = block.first + i / count, t = i % count * each;
            const int64_t steps = std::min(each, block.steps - t);
            EventRows& piece = (*pieces)[i];
            piece.clear();
            dense_.read(call, (block.begin + t) * call.samples + n, call.samples, steps, &piece);
            if (!piece.integers()) integers = false;
          }
        });
    return integers;
  }

  // Sums the tiles of a block, and takes their neurons through its steps.
  void run(const Ort::KernelContext& context, const Call& call, const Block& block,
           const Pieces& pieces, const FusedNeuronCall& neurons) const {
    const int64_t tiles = (call.outputs + kTileOutputs - 1) / kTileOutputs;
    const int64_t shares = block.samples * tiles, count = block.pieces();
    const int64_t size = kTileOutputs * block.steps;  // of the currents of one part of a tile
    const int64_t work = 1 + block.steps * (1 + call.inputs / 2);

    const auto sum = [&](int64_t i, int64_t p, float* currents) {
      const int64_t o = i % tiles * kTileOutputs;
      const int width = static_cast<int>(std::min<int64_t>(kTileOutputs, call.outputs - o));
      const EventRows& piece = pieces[i / tiles * count + p];
      for (int k = 0; k < parts; k++) {
        float* out = currents + k * size + p * block.each() * kTileOutputs;
        for (int64_t r = 0; r < piece.size(); r++, out += kTileOutputs)
          call.weight[k]->sums(piece.row(r), call.target(k, o, width, out));
      }
    };
    const auto run_neurons = [&](int64_t i, const float* currents) {
      const int64_t n = block.first + i / tiles, o = i % tiles * kTileOutputs;
      const float* x[parts];
      for (int k = 0; k < parts; k++) x[k] = currents + k * size;
      neurons.run(block.begin, block.steps, n * call.outputs + o,
                  static_cast<int>(std::min<int64_t>(kTileOutputs, call.outputs - o)), x,
                  kTileOutputs);
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

  const Dense<parts, biased> dense_;
  const FusedNeuron neuron_;
  mutable ScratchPool<Pieces> pieces_;
  mutable ScratchPool<Currents> currents_;
};

// The op of a dense synapse and its neuron: the inputs of the synapse, then those of the neuron,
// without its currents.
template <int parts, bool biased = false>
Declaration dense_and(const Declaration& neuron, FusedNeuron (*make)(const OrtKernelInfo*)) {
  Types inputs(Dense<parts, biased>::kInputs, kFloat);
  std::fill_n(inputs.begin(), 1 + parts, kAny);
  inputs.insert(inputs.end(), neuron.inputs.begin() + parts, neuron.inputs.end());
  const int states = static_cast<int>(neuron.outputs.size()) - 1;
  const int states_at = static_cast<int>(inputs.size()) - states;
  const auto infer = [=](const ShapeInference& shapes) {
    shapes.replace_last(0, 1, 0, shapes.flag(kTimeLast));
    for (int k = 0; k < states; k++) shapes.copy(states_at + k, 1 + k);
  };
  const auto make_fused = [make](const OrtKernelInfo* info) {
    return std::make_unique<DenseNeuronKernel<parts, biased>>(info, make(info));
  };
  Declaration op{Dense<parts, biased>::kName + ("And" + neuron.name), inputs, neuron.outputs, infer,
                 make_fused};
  op.fused = true;
  return op;
}

}  // namespace

void register_fused_dense(const Declaration& neuron, int currents,
                          FusedNeuron (*make)(const OrtKernelInfo*)) {
  RegisterOp(currents == 1 ? dense_and<1>(neuron, make) : dense_and<2>(neuron, make));
  if (currents == 1) RegisterOp(dense_and<1, true>(neuron, make));
}

}  // namespace synapse
