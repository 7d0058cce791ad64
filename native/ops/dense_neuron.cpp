// Dense synapse with a neuron behind it: the spikes of `ops/dense.cpp` and a neuron in one, equal
// to those of the two apart. No file has these ops: `Session` puts the two nodes together.
//
// Some samples and steps at a time, the events of all inputs are found first. Then a tile of
// outputs is summed for one sample, step after step, and its neurons go through these steps while
// their currents are still in the cache.
#include <deque>

#include "../behind.h"
#include "../dense.h"

namespace synapse {
namespace {

constexpr int64_t kMostSteps = 1024;      // whose currents are kept
constexpr int64_t kMostInputs = 1 << 23;  // whose events are kept
constexpr int64_t kMostSamples = 16;      // the same
constexpr int64_t kShares = 8;  // fewer tiles than these are summed in parts of their time

template <int parts>
class DenseNeuronKernel {
 public:
  DenseNeuronKernel(const OrtKernelInfo* info, const NeuronKind& kind, const std::string& name)
      : name_(name), dense_(info), neuron_(kind.make(info)) {}

  OrtStatusPtr ComputeV2(OrtKernelContext* context) const {
    return guarded(name_.c_str(), [&] { compute(Ort::KernelContext(context)); });
  }

 private:
  void compute(const Ort::KernelContext& context) const {
    const auto call = dense_.open(context);
    const int64_t outputs = call.weight[0]->outputs;
    for (int k = 1; k < parts; k++)
      if (call.weight[k]->outputs != outputs)
        throw CallError("weights for " + std::to_string(outputs) + " and " +
                        std::to_string(call.weight[k]->outputs) + " outputs");
    const auto neurons = neuron_->call(context, {call.steps, call.samples, outputs}, kShift);
    if (by_tiles(context, call, *neurons)) return;
    // what is no integer is summed for all rows at once
    const size_t size = static_cast<size_t>(call.rows() * outputs);
    std::vector<float> currents[parts];
    float* y[parts];
    for (int k = 0; k < parts; k++) {
      currents[k].resize(size);
      y[k] = currents[k].data();
    }
    dense_.run(context, call, y);
    neurons->take_all(context, y);
  }

  static constexpr int kShift = Dense<parts>::kInputs - parts;
  using Call = typename Dense<parts>::Call;
  using Currents = Lines<float>;
  using Pieces = std::vector<Piece>;

  // Whether all inputs were integers; if not, nothing of what was written counts.
  bool by_tiles(const Ort::KernelContext& context, const Call& call,
                const NeuronCall& neurons) const {
    const int64_t steps = std::max(int64_t{1}, std::min(call.steps, kMostSteps));
    const int64_t samples = std::clamp(kMostInputs / std::max(steps * call.inputs, int64_t{1}),
                                       int64_t{1}, kMostSamples);
    const auto pieces = pieces_.borrow([](const Pieces&) { return true; },
                                       [] { return std::make_unique<Pieces>(); });
    int64_t begin = 0;
    do {  // once for no steps, whose states pass through
      const int64_t count = std::min(steps, call.steps - begin);
      for (int64_t n = 0; n < call.samples; n += samples) {
        const Block block{begin, count, n, std::min(samples, call.samples - n)};
        if (!read(context, call, block, pieces.get())) return false;
        take(context, call, block, *pieces, neurons);
      }
      begin += count;
    } while (begin < call.steps);
    return true;
  }

  // Some steps of some samples.
  struct Block {
    int64_t begin, steps, first, samples;

    int64_t each() const { return Dense<parts>::piece_of(steps * samples, steps); }
    int64_t pieces() const { return (steps + each() - 1) / each(); }
  };

  bool read(const Ort::KernelContext& context, const Call& call, const Block& block,
            Pieces* pieces) const {
    const int64_t each = block.each(), count = block.pieces();
    const int64_t total = block.samples * count;
    if (static_cast<int64_t>(pieces->size()) < total) pieces->resize(static_cast<size_t>(total));
    std::atomic<bool> integers{true};
    parallel(
        context, total, (1 << 16) / (each * (1 + call.inputs)) + 1, [&](int64_t from, int64_t to) {
          for (int64_t i = from; i < to; i++) {
            const int64_t n = block.first + i / count, t = i % count * each;
            const int64_t steps = std::min(each, block.steps - t);
            Piece& piece = (*pieces)[static_cast<size_t>(i)];
            piece.clear();
            dense_.read(call, (block.begin + t) * call.samples + n, call.samples, steps, &piece);
            if (!piece.integers()) integers = false;
          }
        });
    return integers;
  }

  // Sum the tiles of a block, and take their neurons through its steps.
  void take(const Ort::KernelContext& context, const Call& call, const Block& block,
            const Pieces& pieces, const NeuronCall& neurons) const {
    const int64_t tiles = (call.outputs + kTile - 1) / kTile, shares = block.samples * tiles;
    const int64_t count = block.pieces();
    const int64_t size = kTile * block.steps;  // of the currents of a part of a tile
    const int64_t work = 1 + block.steps * (1 + call.inputs / 2);

    const auto sum = [&](int64_t i, int64_t p, float* currents) {
      const int64_t o = i % tiles * kTile;
      const int width = static_cast<int>(std::min<int64_t>(kTile, call.outputs - o));
      const Piece& piece = pieces[static_cast<size_t>(i / tiles * count + p)];
      for (int k = 0; k < parts; k++) {
        float* out = currents + k * size + p * block.each() * kTile;
        for (int64_t r = 0; r < piece.size(); r++, out += kTile)
          call.weight[k]->sums(piece.row(r), call.target(k, o, width, out));
      }
    };
    const auto take_through = [&](int64_t i, const float* currents) {
      const int64_t n = block.first + i / tiles, o = i % tiles * kTile;
      const float* x[parts];
      for (int k = 0; k < parts; k++) x[k] = currents + k * size;
      neurons.take(block.begin, block.steps, n * call.outputs + o,
                   static_cast<int>(std::min<int64_t>(kTile, call.outputs - o)), x, kTile);
    };

    if (shares < kShares && count > 1) {
      const auto currents = borrow(shares * parts * size);
      const auto at = [&](int64_t i) { return currents->data() + i * parts * size; };
      parallel(context, shares * count, (1 << 15) * count / work + 1,
               [&](int64_t from, int64_t to) {
                 for (int64_t j = from; j < to; j++) sum(j / count, j % count, at(j / count));
               });
      parallel(context, shares, (1 << 7) / block.steps + 1, [&](int64_t from, int64_t to) {
        for (int64_t i = from; i < to; i++) take_through(i, at(i));
      });
      return;
    }
    parallel(context, shares, (1 << 15) / work + 1, [&](int64_t from, int64_t to) {
      const auto currents = borrow(parts * size);
      for (int64_t i = from; i < to; i++) {
        for (int64_t p = 0; p < count; p++) sum(i, p, currents->data());
        take_through(i, currents->data());
      }
    });
  }

  typename Pool<Currents>::Loan borrow(int64_t size) const {
    return currents_.borrow([&](const Currents& kept) { return kept.size() >= size; },
                            [&] { return std::make_unique<Currents>(size); });
  }

  const std::string& name_;
  const Dense<parts> dense_;
  const std::unique_ptr<Neuron> neuron_;
  mutable Pool<Pieces> pieces_;
  mutable Pool<Currents> currents_;
};

// The op of a dense synapse and a kind of neuron.
template <int parts>
struct DenseNeuronOp : Ort::CustomOpBase<DenseNeuronOp<parts>, DenseNeuronKernel<parts>, true> {
  using Kernel = DenseNeuronKernel<parts>;

  const NeuronKind kind;
  const std::string name;

  explicit DenseNeuronOp(const NeuronKind& behind)
      : kind(behind), name(std::string(Dense<parts>::kName) + "And" + behind.name) {
    OrtCustomOp::InferOutputShapeFn = [](const OrtCustomOp* op, OrtShapeInferContext* context) {
      const auto& made = *static_cast<const DenseNeuronOp*>(op);
      return guarded(made.GetName(), [&] { made.infer(Shapes(context)); });
    };
  }

  const char* GetName() const { return name.c_str(); }
  size_t GetInputTypeCount() const { return static_cast<size_t>(kSynapse + kind.inputs); }
  size_t GetOutputTypeCount() const { return static_cast<size_t>(1 + kind.states); }
  ONNXTensorElementDataType GetInputType(size_t i) const {
    const int index = static_cast<int>(i);
    if (index <= parts)
      return ONNX_TENSOR_ELEMENT_DATA_TYPE_UNDEFINED;  // several; the kernel looks
    return index < states_at() ? ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT : kind.state;
  }
  ONNXTensorElementDataType GetOutputType(size_t i) const {
    return i == 0 ? ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT : kind.state;
  }

  OrtStatusPtr CreateKernelV2(const OrtApi&, const OrtKernelInfo* info, void** kernel) const {
    return guarded(GetName(),
                   [&] { *kernel = std::make_unique<Kernel>(info, kind, name).release(); });
  }

 private:
  static constexpr int kSynapse = Dense<parts>::kInputs;

  int states_at() const { return kSynapse + kind.inputs - kind.states; }

  void infer(const Shapes& shapes) const {
    shapes.copy_but_last(0, 1, 0, shapes.flag(kTimeLast));
    for (int k = 0; k < kind.states; k++) shapes.copy(states_at() + k, 1 + k);
  }
};

template <int parts>
void add(const NeuronKind& kind) {
  static std::deque<DenseNeuronOp<parts>> ops;  // sessions refer to them for as long as they live
  const auto& op = ops.emplace_back(kind);
  registered().push_back({&op, op.name.c_str(), true});
}

}  // namespace

void behind_dense(const NeuronKind& kind) { kind.currents == 1 ? add<1>(kind) : add<2>(kind); }

}  // namespace synapse
