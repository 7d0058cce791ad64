// Delay by history time steps: y[t, g] = x[t - delay[g], g], with a delay line of earlier inputs.
//
// A delay only copies data, so kernels depend on the size of a value and not on its type. Runs of
// neighbours with one delay are copied together. Where runs are too short for that, a tile of a few
// columns is read row by row into a window that stays in a cache, and every output takes its values
// from the rows of the window.
#include <algorithm>
#include <cstring>
#include <memory>
#include <vector>

#include "base/op.h"

namespace synapse {
namespace {

constexpr int64_t kRunBytes = 64;          // least average length of a run that is copied alone
constexpr int64_t kTileBytes = 256;        // width of a tile ...
constexpr int64_t kWideBytes = 1 << 11;    // ... and at most where rows come from memory
constexpr int64_t kCached = 1 << 22;       // size of an input that stays in the caches
constexpr int64_t kWindowSteps = 128;      // least number of steps by which a window moves
constexpr int64_t kWindowBytes = 1 << 19;  // largest window of a wide tile
constexpr int64_t kWindowDepth = 1 << 12;  // longest delay for which a window is used
constexpr int64_t kPiece = 1 << 16;        // bytes that are worth waking a thread

// The delays of a node: one for each group, and as runs of neighbours with the same delay.
struct Delays {
  struct Run {
    int64_t first, count, delay;
  };
  std::vector<int64_t> each;
  std::vector<Run> runs;
  int64_t shortest = 0, longest = 0;

  explicit Delays(const Input& delay) {
    if (delay.shape.size() != 1 || delay.size == 0)
      throw CallError("delays need the shape (G,), got ", delay.shape);
    each.assign(delay.as<int64_t>(), delay.as<int64_t>() + delay.size);
    shortest = *std::min_element(each.begin(), each.end());
    longest = *std::max_element(each.begin(), each.end());
    for (int64_t g = 0; g < delay.size; g++) {
      const int64_t steps = each[g];
      if (runs.empty() || runs.back().delay != steps) runs.push_back({g, 0, steps});
      runs.back().count++;
    }
  }
};

// The delay line and the input as one sequence of D + T rows; row 0 is the oldest of the line.
template <class V>
struct History {
  const V *line, *x;
  int64_t depth, width;

  const V* row(int64_t r) const { return r < depth ? line + r * width : x + (r - depth) * width; }

  // Copies `count` values from the value `at` on, across the end of the line.
  void copy(int64_t at, int64_t count, V* out) const {
    const int64_t border = depth * width;
    const int64_t before = std::min(std::max<int64_t>(border - at, 0), count);
    if (before > 0) std::memcpy(out, line + at, bytes(before));
    if (count > before)
      std::memcpy(out + before, x + (at + before - border), bytes(count - before));
  }

  static size_t bytes(int64_t count) { return static_cast<size_t>(count) * sizeof(V); }
};

template <class V>
class DelayKernel : public Kernel {
 public:
  explicit DelayKernel(const OrtKernelInfo* info) {
    if (const auto delay = constant_input(info, 1))
      delays_ = std::make_shared<const Delays>(Input(delay));
  }

  void compute(const Ort::KernelContext& context) const override {
    const Input x(context, 0), line(context, 2);
    plane_of(x.shape);
    Shape shape = x.shape;
    if (!line.shape.empty()) shape[0] = line.shape[0];
    if (line.shape != shape)
      throw CallError("a line of shape ", line.shape, " does not fit an input of ", x.shape);
    auto delays = delays_;
    if (!delays) delays = std::make_shared<const Delays>(Input(context, 1));
    const int64_t depth = shape[0], groups = static_cast<int64_t>(delays->each.size());
    const int64_t width = product(x.shape, 1), sample = product(x.shape, 2);
    if (sample % groups != 0)
      throw CallError(groups, " delays do not part the ", sample, " neurons of an input of ",
                      x.shape);
    if (delays->shortest < 0 || delays->longest > depth)
      throw CallError("delays of ", delays->shortest, " to ", delays->longest,
                      " steps do not lie in 0 to ", depth, ", the steps of the line");
    V* y = static_cast<V*>(context.GetOutput(0, x.shape).GetTensorMutableRawData());
    V* last = static_cast<V*>(context.GetOutput(1, shape).GetTensorMutableRawData());
    const Call call{
        *delays, {line.as<V>(), x.as<V>(), depth, width}, x.shape[0], sample, sample / groups, y};
    const int64_t runs = static_cast<int64_t>(delays->runs.size());
    if (runs == 1) {
      copy(context, call.history, (depth - delays->longest) * width, x.size, y);
    } else if (sample * static_cast<int64_t>(sizeof(V)) >= runs * kRunBytes) {
      copy_runs(context, call);
    } else {
      copy_tiles(context, call);
    }
    copy(context, call.history, x.size, line.size, last);
  }

 private:
  // One call. A column is a neuron of a sample.
  struct Call {
    const Delays& delays;
    History<V> history;
    int64_t steps, sample, members;  // sample and members: neurons of a sample and of a group
    V* y;
  };

  static void copy(const Ort::KernelContext& context, const History<V>& history, int64_t at,
                   int64_t count, V* out) {
    parallel(context, count, kPiece / static_cast<int64_t>(sizeof(V)),
             [&](int64_t from, int64_t to) { history.copy(at + from, to - from, out + from); });
  }

  static void copy_runs(const Ort::KernelContext& context, const Call& call) {
    const History<V>& history = call.history;
    const int64_t least = kPiece / (history.width * static_cast<int64_t>(sizeof(V)) + 1) + 1;
    parallel(context, call.steps, least, [&](int64_t begin, int64_t end) {
      for (int64_t t = begin; t < end; t++) {
        V* out = call.y + t * history.width;
        for (const auto& run : call.delays.runs) {
          const V* in = history.row(history.depth + t - run.delay);
          const size_t bytes = history.bytes(run.count * call.members);
          for (int64_t at = run.first * call.members; at < history.width; at += call.sample)
            std::memcpy(out + at, in + at, bytes);
        }
      }
    });
  }

  static void copy_tiles(const Ort::KernelContext& context, const Call& call) {
    constexpr int64_t size = static_cast<int64_t>(sizeof(V));
    const int64_t longest = call.delays.longest, move = std::max(kWindowSteps, longest);
    // a window first reads as many rows as the longest delay, which does not pay for few steps
    const bool windowed = longest <= std::min(4 * call.steps, kWindowDepth);
    const int64_t rows = windowed ? longest + std::min(move, call.steps) : 0;
    int64_t bytes = kTileBytes;
    if (call.steps * call.history.width * size > kCached)
      while (bytes < kWideBytes && 2 * bytes * rows <= kWindowBytes) bytes *= 2;
    const int64_t columns = bytes / size, tiles = (call.history.width + columns - 1) / columns;
    const int64_t least = kPiece / (bytes * std::max<int64_t>(call.steps, 1)) + 1;
    parallel(context, tiles, least, [&](int64_t begin, int64_t end) {
      std::vector<int64_t> delay(columns), from(columns);
      std::vector<V> window(rows * columns);
      int64_t member = begin * columns % call.sample % call.members;
      int64_t group = begin * columns % call.sample / call.members;
      for (int64_t tile = begin; tile < end; tile++) {
        const int64_t first = tile * columns, count = std::min(columns, call.history.width - first);
        for (int64_t i = 0; i < count; i++) {
          delay[i] = call.delays.each[group];
          if (++member < call.members) continue;
          member = 0;
          if (++group == static_cast<int64_t>(call.delays.each.size())) group = 0;
        }
        if (windowed) {
          const int64_t past = *std::max_element(delay.data(), delay.data() + count);
          for (int64_t i = 0; i < count; i++) from[i] = (past - delay[i]) * columns + i;
          copy_windowed(call, first, count, columns, past, move, from.data(), window.data());
        } else {
          copy_direct(call, first, count, delay.data());
        }
      }
    });
  }

  // A tile copied straight from the line and the input.
  static void copy_direct(const Call& call, int64_t first, int64_t count, const int64_t* delay) {
    for (int64_t t = 0; t < call.steps; t++) {
      V* out = call.y + t * call.history.width + first;
      for (int64_t i = 0; i < count; i++)
        out[i] = call.history.row(call.history.depth + t - delay[i])[first + i];
    }
  }

  // A tile copied through a window of its rows, which begins `past` steps back and moves by `move`
  // steps; `from` is the offset in the window that each column reads.
  static void copy_windowed(const Call& call, int64_t first, int64_t count, int64_t columns,
                            int64_t past, int64_t move, const int64_t* from, V* rows) {
    const auto read = [&](int64_t t, V* to) {
      std::memcpy(to, call.history.row(call.history.depth + t) + first, History<V>::bytes(count));
    };
    for (int64_t k = 0; k < past; k++) read(k - past, rows + k * columns);
    for (int64_t begin = 0; begin < call.steps; begin += move) {
      const int64_t steps = std::min(move, call.steps - begin);
      if (begin > 0) std::copy_n(rows + move * columns, past * columns, rows);
      for (int64_t k = 0; k < steps; k++) read(begin + k, rows + (past + k) * columns);
      for (int64_t k = 0; k < steps; k++)
        gather(rows + k * columns, from, count, call.y + (begin + k) * call.history.width + first);
    }
  }

  // out[i] = in[from[i]]
  static void gather(const V* in, const int64_t* from, int64_t count, V* out) {
    constexpr int64_t unrolled = 16;  // a loop of constant length, which the compiler unrolls
    int64_t i = 0;
    for (; i + unrolled <= count; i += unrolled)
      for (int64_t k = i; k < i + unrolled; k++) out[k] = in[from[k]];
    for (; i < count; i++) out[i] = in[from[i]];
  }

  std::shared_ptr<const Delays> delays_;
};

// The op for a type T, whose values are copied as unsigned integers V of the same size.
template <class T, class V>
Declaration delay() {
  static_assert(sizeof(T) == sizeof(V));
  constexpr ONNXTensorElementDataType type = Ort::TypeToTensorType<T>::type;
  const Types inputs = {type, ONNX_TENSOR_ELEMENT_DATA_TYPE_INT64, type}, outputs(2, type);
  return {"Delay", inputs, outputs, copies({0, 2}), make_kernel<DelayKernel<V>>};
}

const RegisterOp kernels[] = {
    delay<float, uint32_t>(),   delay<double, uint64_t>(),  delay<bool, uint8_t>(),
    delay<uint8_t, uint8_t>(),  delay<int8_t, uint8_t>(),   delay<int16_t, uint16_t>(),
    delay<int32_t, uint32_t>(), delay<int64_t, uint64_t>(),
};

}  // namespace
}  // namespace synapse
