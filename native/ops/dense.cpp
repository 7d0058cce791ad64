// Dense synapse with integer weights: y[n, o, t] = step[o] * sum_c weight[o, c] * x[n, c, t].
//
// Spikes and other integers are summed as integers, whatever their number; other inputs go through
// ONNX Runtime's own product of floats, as in the portable body. The weights are laid out when the
// session is made.
//
// With the attribute time_last the input is (N, C, T), as it comes from outside, and y is (T, N, O)
// all the same: `Session` takes the Transpose before the node away. No file has the attribute.
#include "../synapse.h"

namespace synapse {
namespace {

// Weights (O, C) of all outputs as rows of their inputs, in bytes where they fit, else in 16 bits.
struct Packed {
  int64_t inputs = 0, outputs = 0;
  Matrix<int8_t> bytes;
  Matrix<int16_t> shorts;
  bool wide = false;

  explicit Packed(const Input& weight) {
    if (weight.shape.size() < 2) throw CallError("a weight needs the axes (O, C, ...)");
    outputs = weight.shape[0];
    inputs = product(weight.shape, 1);
    wide = weight.type == ONNX_TENSOR_ELEMENT_DATA_TYPE_INT16;
    if (wide) {
      shorts = Matrix<int16_t>(inputs, outputs);
    } else {
      bytes = Matrix<int8_t>(inputs, outputs);
    }
    for (int64_t o = 0; o < outputs; o++) {
      for (int64_t c = 0; c < inputs; c++) {
        const int32_t value = integer_weight(weight, o * inputs + c);
        wide ? shorts.set(c, o, value) : bytes.set(c, o, value);
      }
    }
  }

  int32_t at(int64_t c, int64_t o) const { return wide ? shorts.at(c, o) : bytes.at(c, o); }

  // out[o] = gain[o] * sum of a row of events; the gain is one, or one an output.
  void one(const Events& events, const float* gain, int64_t gains, float* out) const {
    for (int64_t first = 0; first < outputs; first += kTile) {
      if (wide) {
        tile_of(shorts, events, first, gain, gains, out);
      } else {
        tile_of(bytes, events, first, gain, gains, out);
      }
    }
  }

 private:
  template <class W>
  static void tile_of(const Matrix<W>& matrix, const Events& events, int64_t first,
                      const float* gain, int64_t gains, float* out) {
    if (matrix.fits(events)) {
      sums_of<int32_t>(matrix, events, first, gain, gains, out);
    } else {
      sums_of<int64_t>(matrix, events, first, gain, gains, out);
    }
  }

  template <class S, class W>
  static void sums_of(const Matrix<W>& matrix, const Events& events, int64_t first,
                      const float* gain, int64_t gains, float* out) {
    alignas(64) S sums[kTile];
    tile_sums(events, matrix, first, sums);
    const int64_t count = std::min<int64_t>(kTile, matrix.outputs - first);
    for (int64_t o = 0; o < count; o++)
      out[first + o] = static_cast<float>(sums[o]) * gain[gains == 1 ? 0 : first + o];
  }
};

// `parts` is 2 where the weight is complex: one output for its real part, one for the imaginary.
template <int parts>
class DenseKernel {
 public:
  static constexpr const char* kName = parts == 1 ? "QuantizedDense" : "QuantizedComplexDense";
  static constexpr int kParts = parts;
  static constexpr bool kAnyInput = true;

  static void infer(const Shapes& shapes) {
    for (int k = 0; k < parts; k++) shapes.copy_but_last(0, 1 + k, k, shapes.flag(kTimeLast));
  }

  explicit DenseKernel(const OrtKernelInfo* raw) {
    const Ort::ConstKernelInfo info(raw);
    time_last_ = flag(info, kTimeLast);
    const char* names[] = {"T"};
    const ONNXTensorElementDataType types[] = {ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT};
    matmul_ = Ort::Op::Create(raw, "MatMul", "", 13, names, types, 1, nullptr, 0, 2, 1);
    for (int k = 0; k < parts; k++) {
      int constant = 0;
      const auto value = info.GetTensorConstantInput(static_cast<size_t>(1 + k), &constant);
      if (constant) packed_[k] = std::make_shared<const Packed>(Input(value));
    }
  }

  OrtStatusPtr ComputeV2(OrtKernelContext* context) const {
    return guarded(kName, [&] { compute(Ort::KernelContext(context), context); });
  }

 private:
  using Weights = std::shared_ptr<const Packed>;

  struct Scratch {
    int64_t inputs;
    Events events;
    std::unique_ptr<Turned> turned;  // where it is wanted

    explicit Scratch(int64_t count) : inputs(count), events(count) {}
  };

  typename Pool<Scratch>::Loan borrow(int64_t inputs) const {
    return scratch_.borrow([&](const Scratch& kept) { return kept.inputs == inputs; },
                           [&] { return std::make_unique<Scratch>(inputs); });
  }

  static constexpr const char* kTimeLast = "time_last";

  // Where the inputs of (time step, sample) lie.
  struct Rows {
    int64_t steps, samples, inputs;
    bool time_last;

    Rows(const Input& x, bool last)
        : steps(x.shape[last ? 2 : 0]),
          samples(x.shape[last ? 0 : 1]),
          inputs(x.shape[last ? 1 : 2]),
          time_last(last && steps != 1) {}  // a single step lies the same way

    int64_t size() const { return steps * samples; }
    int64_t stride() const { return time_last ? steps : 1; }
    int64_t begin(int64_t t, int64_t n) const {
      return time_last ? n * inputs * steps + t : (t * samples + n) * inputs;
    }
  };

  void compute(const Ort::KernelContext& context, OrtKernelContext* raw) const {
    const Input x(context, 0);
    if (x.shape.size() != 3)
      throw CallError(std::string("the input needs the axes ") +
                      (time_last_ ? "(N, C, T)" : "(T, N, C)") + ", got " + text(x.shape));
    const bool bytes = x.type == ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT8;
    if (!bytes && x.type != ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT)
      throw CallError("the input must be float32 or uint8");
    const Rows rows(x, time_last_);
    const int64_t inputs = rows.inputs;
    Weights weight[parts];
    const float* step[parts];
    int64_t steps[parts];
    float* y[parts];
    int64_t largest_layer = 0;
    for (int k = 0; k < parts; k++) {
      weight[k] = packed_[k];
      if (!weight[k]) weight[k] = std::make_shared<const Packed>(Input(context, 1 + k));
      const Input scale(context, 1 + parts + k);
      if (weight[k]->inputs != inputs)
        throw CallError("a weight for " + std::to_string(weight[k]->inputs) +
                        " inputs does not fit an input of " + text(x.shape));
      check_step(scale, weight[k]->outputs, "outputs");
      step[k] = scale.as<float>();
      steps[k] = scale.size;
      const std::vector<int64_t> shape = {rows.steps, rows.samples, weight[k]->outputs};
      y[k] = context.GetOutput(k, shape).template GetTensorMutableData<float>();
      largest_layer = std::max(largest_layer, weight[k]->outputs);
    }
    std::vector<uint8_t> left(static_cast<size_t>(rows.size()), 0);  // rows that are no integers
    const auto sum = [&](const Events& events, int64_t r) {
      if (!events.integers) {
        left[static_cast<size_t>(r)] = 1;
        return;
      }
      for (int k = 0; k < parts; k++)
        weight[k]->one(events, step[k], steps[k], y[k] + r * weight[k]->outputs);
    };
    const int64_t work = 1 + inputs / 4 + inputs * largest_layer / 256;
    if (rows.time_last) {
      if (bytes) {
        turned(context, rows, x.as<uint8_t>(), work, sum);
      } else {
        turned(context, rows, x.as<float>(), work, sum);
      }
    } else {
      parallel(context, rows.size(), (1 << 15) / work + 1, [&](int64_t from, int64_t to) {
        const auto scratch = borrow(inputs);
        Events& events = scratch->events;
        for (int64_t r = from; r < to; r++) {
          if (bytes) {
            events.read(x.as<uint8_t>() + r * inputs, inputs);
          } else {
            events.read(x.as<float>() + r * inputs, inputs);
          }
          sum(events, r);
        }
      });
    }
    if (std::find(left.begin(), left.end(), 1) == left.end()) return;
    for (int k = 0; k < parts; k++) of_floats(raw, x, *weight[k], step[k], steps[k], rows, left, y[k]);
  }

  // Sum inputs with time last, some steps of a sample at a time.
  template <class X, class Sum>
  void turned(const Ort::KernelContext& context, const Rows& rows, const X* x, int64_t work,
              const Sum& sum) const {
    const int64_t fair = (rows.size() + 7) / 8;  // a piece for each of several threads
    const int64_t each = std::min(Turned::kSteps, (std::max(fair, int64_t{1}) + 15) / 16 * 16);
    const int64_t pieces = (rows.steps + each - 1) / each;
    const int64_t least = (1 << 15) / (work * each) + 1;
    parallel(context, rows.samples * pieces, least, [&](int64_t from, int64_t to) {
      const auto scratch = borrow(rows.inputs);
      Events& events = scratch->events;
      if (!scratch->turned) scratch->turned = std::make_unique<Turned>(rows.inputs);
      Turned& spikes = *scratch->turned;
      std::vector<X> row;
      for (int64_t piece = from; piece < to; piece++) {
        const int64_t n = piece / pieces, begin = piece % pieces * each;
        const int64_t count = std::min(each, rows.steps - begin);
        const X* first = x + rows.begin(begin, n);
        const bool only_spikes = spikes.read(first, rows.steps, count);
        for (int64_t t = 0; t < count; t++) {
          if (only_spikes) {
            spikes.give(t, &events);
          } else {
            row.resize(static_cast<size_t>(rows.inputs));
            for (int64_t c = 0; c < rows.inputs; c++)
              row[static_cast<size_t>(c)] = first[c * rows.steps + t];
            events.read(row.data(), rows.inputs);
          }
          sum(events, (begin + t) * rows.samples + n);
        }
      }
    });
  }

  // The rows that are left, by ONNX Runtime's product of floats.
  void of_floats(OrtKernelContext* raw, const Input& x, const Packed& packed, const float* step,
                 int64_t steps, const Rows& rows, const std::vector<uint8_t>& left,
                 float* y) const {
    const int64_t inputs = packed.inputs, outputs = packed.outputs;
    std::vector<float> weights(static_cast<size_t>(inputs * outputs)), some, products;
    for (int64_t c = 0; c < inputs; c++)
      for (int64_t o = 0; o < outputs; o++)
        weights[static_cast<size_t>(c * outputs + o)] = static_cast<float>(packed.at(c, o));
    std::vector<int64_t> chosen;
    for (int64_t r = 0; r < rows.size(); r++)
      if (left[static_cast<size_t>(r)]) chosen.push_back(r);
    for (const int64_t r : chosen) {
      for (int64_t c = 0; c < inputs; c++) {
        const int64_t at = rows.begin(r / rows.samples, r % rows.samples) + c * rows.stride();
        some.push_back(x.type == ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT8 ? x.as<uint8_t>()[at]
                                                                     : x.as<float>()[at]);
      }
    }
    products.resize(chosen.size() * static_cast<size_t>(outputs));
    const auto memory = Ort::MemoryInfo::CreateCpu(OrtArenaAllocator, OrtMemTypeDefault);
    const auto tensor = [&](std::vector<float>& data, int64_t height, int64_t width) {
      const int64_t shape[] = {height, width};
      return Ort::Value::CreateTensor<float>(memory, data.data(), data.size(), shape, 2);
    };
    const int64_t height = static_cast<int64_t>(chosen.size());
    const Ort::Value a = tensor(some, height, inputs), b = tensor(weights, inputs, outputs);
    Ort::Value product_of = tensor(products, height, outputs);
    const OrtValue* in[] = {a, b};
    OrtValue* out[] = {product_of};
    Ort::Op& matmul = const_cast<Ort::Op&>(matmul_);  // the wrapper's Invoke is not const
    matmul.Invoke(raw, in, 2, out, 1);
    for (size_t i = 0; i < chosen.size(); i++)
      for (int64_t o = 0; o < outputs; o++)
        y[chosen[i] * outputs + o] =
            products[i * static_cast<size_t>(outputs) + static_cast<size_t>(o)] *
            step[steps == 1 ? 0 : o];
  }

  Ort::Op matmul_{nullptr};
  bool time_last_ = false;
  mutable Pool<Scratch> scratch_;
  Weights packed_[parts];
};

const RegisterSynapse<DenseKernel<1>> real;
const RegisterSynapse<DenseKernel<2>> both;

}  // namespace
}  // namespace synapse
