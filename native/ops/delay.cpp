// Delay by whole time steps: y[t, g] = x[t - delay[g], g], from a line of the inputs before.
//
// Nothing is computed, so values are moved by their size. Neighbours of one delay are copied as
// one. Where those are too few, a tile of some columns is read as rows into a window that stays in
// a cache, and every output takes its values from rows of that.
#include <algorithm>
#include <cstring>
#include <memory>
#include <type_traits>
#include <vector>

#include "../common.h"

namespace synapse {
namespace {

constexpr int64_t kRunBytes = 64;          // neighbours that are worth a copy of their own
constexpr int64_t kTileBytes = 256;        // of a row of a tile
constexpr int64_t kWideBytes = 1 << 11;    // the same where rows come from memory, at the most
constexpr int64_t kCached = 1 << 22;       // bytes of an input that caches hold
constexpr int64_t kWindowSteps = 128;      // that a window moves on by, at the least
constexpr int64_t kWindowBytes = 1 << 19;  // of a window of wide rows
constexpr int64_t kWindowDepth = 1 << 12;  // longest delay that a window is for
constexpr int64_t kPiece = 1 << 16;        // bytes that are worth waking a thread for

// The delays of a node: as they are, and as runs of neighbours that share one.
struct Delays {
  struct Run {
    int64_t first, count, delay;
  };
  std::vector<int64_t> each;
  std::vector<Run> runs;
  int64_t shortest = 0, longest = 0;

  explicit Delays(const Input& delay) {
    if (delay.shape.size() != 1 || delay.size == 0)
      throw CallError("delays need the shape (G,), got " + text(delay.shape));
    each.assign(delay.as<int64_t>(), delay.as<int64_t>() + delay.size);
    shortest = *std::min_element(each.begin(), each.end());
    longest = *std::max_element(each.begin(), each.end());
    for (int64_t g = 0; g < delay.size; g++) {
      const int64_t steps = each[static_cast<size_t>(g)];
      if (runs.empty() || runs.back().delay != steps) runs.push_back({g, 0, steps});
      runs.back().count++;
    }
  }
};

// Line and input as one sequence of D + T rows; row 0 is the oldest of the line.
template <class V>
struct Whole {
  const V *line, *x;
  int64_t depth, width;

  const V* row(int64_t r) const { return r < depth ? line + r * width : x + (r - depth) * width; }

  // Copy `count` values from the value `at` on, wherever the line ends.
  void copy(int64_t at, int64_t count, V* out) const {
    const int64_t border = depth * width;
    const int64_t before = std::min(std::max<int64_t>(border - at, 0), count);
    if (before > 0) std::memcpy(out, line + at, bytes(before));
    if (count > before)
      std::memcpy(out + before, x + (at + before - border), bytes(count - before));
  }

  static size_t bytes(int64_t count) { return static_cast<size_t>(count) * sizeof(V); }
};

// What a thread needs for its tiles: the delays of the columns, and the window of their rows.
template <class V>
struct Window {
  int64_t columns, move;  // of a whole tile; steps that the window moves on by
  std::vector<int64_t> delay, from;
  std::vector<V> rows;

  Window(int64_t columns, int64_t move, int64_t rows)
      : columns(columns),
        move(move),
        delay(static_cast<size_t>(columns)),
        from(static_cast<size_t>(columns)),
        rows(static_cast<size_t>(rows * columns)) {}
};

template <class V>
class DelayKernel {
 public:
  explicit DelayKernel(const OrtKernelInfo* raw) {
    int constant = 0;
    const auto delay = Ort::ConstKernelInfo(raw).GetTensorConstantInput(1, &constant);
    if (constant) delays_ = std::make_shared<const Delays>(Input(delay));
  }

  OrtStatusPtr ComputeV2(OrtKernelContext* context) const {
    return guarded("Delay", [&] { compute(Ort::KernelContext(context)); });
  }

 private:
  // One call. A column is a neuron of a sample.
  struct Job {
    const Delays& delays;
    Whole<V> whole;
    int64_t steps, sample, members;  // neurons of a sample, and of a group
    V* y;
  };

  void compute(const Ort::KernelContext& context) const {
    const Input x(context, 0), line(context, 2);
    if (x.shape.size() < 3)
      throw CallError("the input needs the axes (T, N, C, ...), got " + text(x.shape));
    std::vector<int64_t> shape = x.shape;
    if (!line.shape.empty()) shape[0] = line.shape[0];
    if (line.shape != shape)
      throw CallError("a line of shape " + text(line.shape) + " does not fit an input of " +
                      text(x.shape));
    auto delays = delays_;
    if (!delays) delays = std::make_shared<const Delays>(Input(context, 1));
    const int64_t depth = shape[0], groups = static_cast<int64_t>(delays->each.size());
    const int64_t width = product(x.shape, 1), sample = product(x.shape, 2);
    if (sample % groups != 0)
      throw CallError(std::to_string(groups) + " delays do not part the " + std::to_string(sample) +
                      " neurons of an input of " + text(x.shape));
    if (delays->shortest < 0 || delays->longest > depth)
      throw CallError("delays of " + std::to_string(delays->shortest) + " to " +
                      std::to_string(delays->longest) + " steps do not lie in 0 to " +
                      std::to_string(depth) + ", the steps of the line");
    V* y = static_cast<V*>(context.GetOutput(0, x.shape).GetTensorMutableRawData());
    V* last = static_cast<V*>(context.GetOutput(1, shape).GetTensorMutableRawData());
    const Job job{
        *delays, {line.as<V>(), x.as<V>(), depth, width}, x.shape[0], sample, sample / groups, y};
    const int64_t runs = static_cast<int64_t>(delays->runs.size());
    if (runs == 1) {
      copy(context, job.whole, (depth - delays->longest) * width, x.size, y);
    } else if (sample * static_cast<int64_t>(sizeof(V)) >= runs * kRunBytes) {
      copy_runs(context, job);
    } else {
      copy_tiles(context, job);
    }
    copy(context, job.whole, x.size, line.size, last);
  }

  static void copy(const Ort::KernelContext& context, const Whole<V>& whole, int64_t at,
                   int64_t count, V* out) {
    parallel(context, count, kPiece / static_cast<int64_t>(sizeof(V)),
             [&](int64_t from, int64_t to) { whole.copy(at + from, to - from, out + from); });
  }

  static void copy_runs(const Ort::KernelContext& context, const Job& job) {
    const Whole<V>& whole = job.whole;
    const int64_t least = kPiece / (whole.width * static_cast<int64_t>(sizeof(V)) + 1) + 1;
    parallel(context, job.steps, least, [&](int64_t begin, int64_t end) {
      for (int64_t t = begin; t < end; t++) {
        V* out = job.y + t * whole.width;
        for (const auto& run : job.delays.runs) {
          const V* in = whole.row(whole.depth + t - run.delay);
          const size_t bytes = whole.bytes(run.count * job.members);
          for (int64_t at = run.first * job.members; at < whole.width; at += job.sample)
            std::memcpy(out + at, in + at, bytes);
        }
      }
    });
  }

  static void copy_tiles(const Ort::KernelContext& context, const Job& job) {
    constexpr int64_t size = static_cast<int64_t>(sizeof(V));
    const int64_t longest = job.delays.longest, move = std::max(kWindowSteps, longest);
    // a window first reads as many rows as the delays are long, which few steps do not repay
    const bool windowed = longest <= std::min(4 * job.steps, kWindowDepth);
    const int64_t rows = windowed ? longest + std::min(move, job.steps) : 0;
    int64_t bytes = kTileBytes;
    if (job.steps * job.whole.width * size > kCached)
      while (bytes < kWideBytes && 2 * bytes * rows <= kWindowBytes) bytes *= 2;
    const int64_t columns = bytes / size, tiles = (job.whole.width + columns - 1) / columns;
    const int64_t least = kPiece / (bytes * std::max<int64_t>(job.steps, 1)) + 1;
    parallel(context, tiles, least, [&](int64_t begin, int64_t end) {
      Window<V> window(columns, move, rows);
      int64_t member = begin * columns % job.sample % job.members;
      int64_t group = begin * columns % job.sample / job.members;
      for (int64_t tile = begin; tile < end; tile++) {
        const int64_t first = tile * columns, count = std::min(columns, job.whole.width - first);
        for (int64_t i = 0; i < count; i++) {
          window.delay[static_cast<size_t>(i)] = job.delays.each[static_cast<size_t>(group)];
          if (++member < job.members) continue;
          member = 0;
          if (++group == static_cast<int64_t>(job.delays.each.size())) group = 0;
        }
        if (windowed) {
          through(job, window, first, count);
        } else {
          scattered(job, window, first, count);
        }
      }
    });
  }

  // A tile straight from line and input.
  static void scattered(const Job& job, const Window<V>& window, int64_t first, int64_t count) {
    const int64_t* delay = window.delay.data();
    for (int64_t t = 0; t < job.steps; t++) {
      V* out = job.y + t * job.whole.width + first;
      for (int64_t i = 0; i < count; i++)
        out[i] = job.whole.row(job.whole.depth + t - delay[i])[first + i];
    }
  }

  // A tile through its window.
  static void through(const Job& job, Window<V>& window, int64_t first, int64_t count) {
    const int64_t columns = window.columns, move = window.move;
    const int64_t past = *std::max_element(window.delay.data(), window.delay.data() + count);
    V* const rows = window.rows.data();
    int64_t* const from = window.from.data();  // where in the window each column reads
    for (int64_t i = 0; i < count; i++)
      from[i] = (past - window.delay[static_cast<size_t>(i)]) * columns + i;
    const auto read = [&](int64_t t, V* to) {
      std::memcpy(to, job.whole.row(job.whole.depth + t) + first, Whole<V>::bytes(count));
    };
    for (int64_t k = 0; k < past; k++) read(k - past, rows + k * columns);
    for (int64_t begin = 0; begin < job.steps; begin += move) {
      const int64_t steps = std::min(move, job.steps - begin);
      if (begin > 0) std::copy_n(rows + move * columns, past * columns, rows);
      for (int64_t k = 0; k < steps; k++) read(begin + k, rows + (past + k) * columns);
      for (int64_t k = 0; k < steps; k++) {
        V* out = job.y + (begin + k) * job.whole.width + first;
        take(rows + k * columns, from, count, out);
      }
    }
  }

  // out[i] = in[from[i]]
  static void take(const V* in, const int64_t* from, int64_t count, V* out) {
    constexpr int64_t together = 16;  // a loop of constant length, which the compiler writes out
    int64_t i = 0;
    for (; i + together <= count; i += together)
      for (int64_t k = i; k < i + together; k++) out[k] = in[from[k]];
    for (; i < count; i++) out[i] = in[from[i]];
  }

  std::shared_ptr<const Delays> delays_;
};

// An unsigned integer of a type's size.
template <class T>
using Bits =
    std::conditional_t<sizeof(T) == 1, uint8_t,
                       std::conditional_t<sizeof(T) == 2, uint16_t,
                                          std::conditional_t<sizeof(T) == 4, uint32_t, uint64_t>>>;

template <class T>
struct DelayOp : Ort::CustomOpBase<DelayOp<T>, DelayKernel<Bits<T>>, true> {
  const char* GetName() const { return "Delay"; }
  size_t GetInputTypeCount() const { return 3; }
  size_t GetOutputTypeCount() const { return 2; }
  ONNXTensorElementDataType GetInputType(size_t i) const {
    return i == 1 ? ONNX_TENSOR_ELEMENT_DATA_TYPE_INT64 : GetOutputType(i);
  }
  ONNXTensorElementDataType GetOutputType(size_t) const { return Ort::TypeToTensorType<T>::type; }

  OrtStatusPtr CreateKernelV2(const OrtApi&, const OrtKernelInfo* info, void** kernel) const {
    return guarded("Delay",
                   [&] { *kernel = std::make_unique<DelayKernel<Bits<T>>>(info).release(); });
  }

  DelayOp() {
    OrtCustomOp::InferOutputShapeFn = [](const OrtCustomOp*, OrtShapeInferContext* context) {
      return guarded("Delay", [&] {
        const Shapes shapes(context);
        shapes.copy(0, 0);
        shapes.copy(2, 1);
      });
    };
  }
};

// Registers a kernel for each of several types.
template <class... T>
struct RegisterDelay {
  RegisterDelay() { (add<T>(), ...); }

 private:
  template <class V>
  static void add() {
    static const DelayOp<V> op;
    Register(op, "Delay");
  }
};

const RegisterDelay<float, double, bool, uint8_t, int8_t, int16_t, int32_t, int64_t> kernels;

}  // namespace
}  // namespace synapse
