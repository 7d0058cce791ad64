// Convolution with integer weights: y[n, o, t] = step[o] * sum_c weight[o, c] * x[n, c, t] at every
// place of an image, with stride, padding, dilation and groups.
//
// Every event, an input that is not zero, adds the weights of its neighbourhood to the sums around
// it, which lie outputs last: for a stride of one the weights of a row of the kernel lie as its
// sums do, and one loop adds them. Inputs that are no integers go through ONNX Runtime's own
// convolution.
#include "../synapse.h"

namespace synapse {
namespace {

constexpr int kGroup = 16;  // outputs are padded to whole groups

struct Geometry {
  int64_t batch, channels, height, width;  // input; batch counts time steps as well
  int64_t outputs, out_height, out_width;
  int64_t kernel_height, kernel_width, stride_y, stride_x, pad_y, pad_x, dilation_y, dilation_x;
  int64_t groups;

  int64_t places() const { return out_height * out_width; }
};

// Weights (O, C / groups, h, w) as [channel][ky][kw - 1 - kx][output of the group, padded].
struct Kernels {
  std::vector<int64_t> shape;
  Lines<int16_t> rows;
  std::vector<float> floats;  // as they came, for inputs that are no integers
  int64_t group_outputs = 0, padded = 0, row = 0, channel = 0;
  int64_t largest_sum = 0;  // of magnitudes, over all that an output may see

  Kernels(const Input& weight, int64_t groups) : shape(weight.shape) {
    if (shape.size() != 5 || shape[4] != 1)
      throw CallError("a weight needs the axes (O, C, h, w, 1), got " + text(shape));
    if (groups < 1 || shape[0] % groups != 0)
      throw CallError(std::to_string(shape[0]) + " outputs do not part into " +
                      std::to_string(groups) + " groups");
    const int64_t outputs = shape[0], fan = shape[1], height = shape[2], width = shape[3];
    group_outputs = outputs / groups;
    padded = (group_outputs + kGroup - 1) / kGroup * kGroup;
    row = width * padded;
    channel = height * row;
    rows = Lines<int16_t>(groups * fan * channel);
    floats.resize(static_cast<size_t>(weight.size));
    for (int64_t o = 0; o < outputs; o++) {
      const int64_t group = o / group_outputs;
      int64_t sum = 0;
      for (int64_t c = 0; c < fan; c++) {
        for (int64_t y = 0; y < height; y++) {
          for (int64_t x = 0; x < width; x++) {
            const int64_t at = ((o * fan + c) * height + y) * width + x;
            const int32_t value = integer_weight(weight, at);
            const int64_t to = (group * fan + c) * channel + y * row + (width - 1 - x) * padded +
                               o % group_outputs;
            rows.data()[to] = static_cast<int16_t>(value);
            floats[static_cast<size_t>(at)] = static_cast<float>(value);
            sum += value < 0 ? -value : value;
          }
        }
      }
      largest_sum = std::max(largest_sum, sum);
    }
  }
};

// Adds n groups of weights to n groups of sums.
template <class S, bool ones>
SYNAPSE_INLINE void add(S* sums, const int16_t* weights, int64_t groups, S value) {
  for (int64_t b = 0; b < groups; b++) {
    SYNAPSE_INDEPENDENT
    for (int i = 0; i < kGroup; i++) {
      const S weight = weights[b * kGroup + i];
      sums[b * kGroup + i] += ones ? weight : static_cast<S>(weight * value);
    }
  }
}

// Which outputs an input reaches along one axis, and through which weight: for every place of the
// input a row of pairs, found once a call, for a division an event would cost more than its sums.
struct Reach {
  struct Pair {
    int32_t output, weight;
  };
  std::vector<Pair> pairs;
  std::vector<int32_t> count;

  Reach(int64_t size, int64_t out, int64_t kernel, int64_t stride, int64_t pad, int64_t dilation)
      : pairs(static_cast<size_t>(size * kernel)), count(static_cast<size_t>(size)) {
    for (int64_t i = 0; i < size; i++) {
      for (int64_t k = 0; k < kernel; k++) {
        const int64_t at = i + pad - k * dilation;
        if (at < 0 || at % stride != 0 || at / stride >= out) continue;
        pairs[static_cast<size_t>(i * kernel + count[static_cast<size_t>(i)]++)] = {
            static_cast<int32_t>(at / stride), static_cast<int32_t>(k)};
      }
    }
  }
};

struct Reaches {
  Reach down, across;
  std::vector<int32_t> row_of, column_of;

  explicit Reaches(const Geometry& g)
      : down(g.height, g.out_height, g.kernel_height, g.stride_y, g.pad_y, g.dilation_y),
        across(g.width, g.out_width, g.kernel_width, g.stride_x, g.pad_x, g.dilation_x),
        row_of(static_cast<size_t>(g.height * g.width)),
        column_of(row_of.size()) {
    for (int64_t i = 0; i < g.height * g.width; i++) {
      row_of[static_cast<size_t>(i)] = static_cast<int32_t>(i / g.width);
      column_of[static_cast<size_t>(i)] = static_cast<int32_t>(i % g.width);
    }
  }
};

// All events of one channel of an image.
template <class S, bool ones>
struct Plane {
  SYNAPSE_CLONES static void run(const Geometry& g, const Kernels& k, const Events& events,
                                 const Reaches& reaches, const int16_t* weights, S* sums) {
    const int64_t groups = k.padded / kGroup, last = g.kernel_width - 1;
    const bool side_by_side = g.stride_x == 1 && g.dilation_x == 1;
    for (int64_t e = 0; e < events.count; e++) {
      const size_t index = static_cast<size_t>(events.index[static_cast<size_t>(e)]);
      const S value = ones ? S(1) : static_cast<S>(events.value[static_cast<size_t>(e)]);
      const size_t y = static_cast<size_t>(reaches.row_of[index]);
      const size_t x = static_cast<size_t>(reaches.column_of[index]);
      const Reach::Pair* down = reaches.down.pairs.data() + y * g.kernel_height;
      const Reach::Pair* across = reaches.across.pairs.data() + x * g.kernel_width;
      const int32_t rows = reaches.down.count[y], columns = reaches.across.count[x];
      if (columns == 0) continue;
      for (int32_t i = 0; i < rows; i++) {
        S* line = sums + down[i].output * g.out_width * k.padded;
        const int16_t* row = weights + down[i].weight * k.row;
        if (side_by_side) {  // from the last column of the kernel to the first
          const Reach::Pair& left = across[columns - 1];
          add<S, ones>(line + left.output * k.padded, row + (last - left.weight) * k.padded,
                       columns * groups, value);
        } else {
          for (int32_t j = 0; j < columns; j++)
            add<S, ones>(line + across[j].output * k.padded,
                         row + (last - across[j].weight) * k.padded, groups, value);
        }
      }
    }
  }
};

// out[o][place] = gain[o] * sums[place][o], for the outputs of a group.
template <class S>
struct Give {
  SYNAPSE_CLONES static void run(const S* sums, int64_t places, int64_t padded, int64_t outputs,
                                 const float* gain, int64_t gains, float* out) {
    for (int64_t first = 0; first < outputs; first += kGroup) {
      const int64_t count = std::min<int64_t>(kGroup, outputs - first);
      alignas(64) float gained[kGroup], block[kGroup][kGroup];
      for (int64_t i = 0; i < kGroup; i++)
        gained[i] = i < count ? gain[gains == 1 ? 0 : first + i] : 0.0f;
      int64_t place = 0;
      for (; place + kGroup <= places; place += kGroup) {
        for (int p = 0; p < kGroup; p++) {
          const S* from = sums + (place + p) * padded + first;
          SYNAPSE_INDEPENDENT
          for (int i = 0; i < kGroup; i++) block[p][i] = static_cast<float>(from[i]) * gained[i];
        }
        for (int64_t i = 0; i < count; i++) {
          float* to = out + (first + i) * places + place;
          for (int p = 0; p < kGroup; p++) to[p] = block[p][i];
        }
      }
      for (; place < places; place++)
        for (int64_t i = 0; i < count; i++)
          out[(first + i) * places + place] =
              static_cast<float>(sums[place * padded + first + i]) * gained[i];
    }
  }
};

class ConvKernel {
 public:
  static constexpr const char* kName = "QuantizedConv";
  static constexpr int kParts = 1;
  static constexpr bool kAnyInput = true;

  static void infer(const Shapes& shapes) { shapes.image(0, 1, 0); }

  explicit ConvKernel(const OrtKernelInfo* raw) : placing_(Ort::ConstKernelInfo(raw)) {
    const Ort::ConstKernelInfo info(raw);
    group_ = info.GetAttribute<int64_t>("group");
    int constant = 0;
    const auto value = info.GetTensorConstantInput(1, &constant);
    if (constant) packed_ = std::make_shared<const Kernels>(Input(value), group_);
    const auto ints = [](const char* name, const std::vector<int64_t>& values) {
      return Ort::OpAttr(name, values.data(), static_cast<int>(values.size()), ORT_OP_ATTR_INTS);
    };
    const Ort::OpAttr attributes[] = {
        ints("strides", placing_.strides), ints("pads", placing_.pads),
        ints("dilations", placing_.dilations), Ort::OpAttr("group", &group_, 1, ORT_OP_ATTR_INT)};
    const char* names[] = {"T"};
    const ONNXTensorElementDataType types[] = {ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT};
    conv_ = Ort::Op::Create(raw, "Conv", "", 11, names, types, 1, attributes, 4, 2, 1);
  }

  OrtStatusPtr ComputeV2(OrtKernelContext* context) const {
    return guarded(kName, [&] { compute(Ort::KernelContext(context), context); });
  }

 private:
  void compute(const Ort::KernelContext& context, OrtKernelContext* raw) const {
    const Input x(context, 0), step(context, 2);
    if (x.shape.size() != 5)
      throw CallError("the input needs the axes (T, N, C, H, W), got " + text(x.shape));
    const bool bytes = x.type == ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT8;
    if (!bytes && x.type != ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT)
      throw CallError("the input must be float32 or uint8");
    std::shared_ptr<const Kernels> kernels = packed_;
    if (!kernels) kernels = std::make_shared<const Kernels>(Input(context, 1), group_);
    const Geometry g = geometry(x, *kernels);
    check_step(step, g.outputs, "outputs");
    auto output =
        context.GetOutput(0, {x.shape[0], x.shape[1], g.outputs, g.out_height, g.out_width});
    float* y = output.GetTensorMutableData<float>();
    if (g.batch == 0) return;

    const int64_t image = g.channels * g.height * g.width;
    const Reaches reaches(g);
    std::atomic<bool> integers{true};
    const int64_t work = 1 + image / 4 + g.outputs * g.places();
    parallel(context, g.batch, (1 << 14) / work + 1, [&](int64_t from, int64_t to) {
      Scratch scratch(g, *kernels);
      for (int64_t b = from; b < to && integers; b++) {
        const bool done = bytes ? one_image(g, *kernels, x.as<uint8_t>() + b * image, reaches, step,
                                            scratch, y + b * g.outputs * g.places())
                                : one_image(g, *kernels, x.as<float>() + b * image, reaches, step,
                                            scratch, y + b * g.outputs * g.places());
        if (!done) integers = false;
      }
    });
    if (!integers) of_floats(raw, x, *kernels, g, step, y);
  }

  struct Scratch {
    std::vector<Events> events;
    Lines<int16_t> shorts;
    Lines<int32_t> longs;

    Scratch(const Geometry& g, const Kernels& k)
        : events(static_cast<size_t>(g.channels), Events(g.height * g.width)),
          shorts(g.places() * k.padded) {}
  };

  // Whether the image holds integers whose sums fit; else nothing is written.
  template <class X>
  bool one_image(const Geometry& g, const Kernels& k, const X* x, const Reaches& reaches,
                 const Input& step, Scratch& scratch, float* y) const {
    int64_t most = 1;
    for (int64_t c = 0; c < g.channels; c++) {
      Events& events = scratch.events[static_cast<size_t>(c)];
      events.read(x + c * g.height * g.width, g.height * g.width);
      if (!events.integers) return false;
      if (!events.ones)
        for (int64_t e = 0; e < events.count; e++)
          most = std::max<int64_t>(most, std::abs(events.value[static_cast<size_t>(e)]));
    }
    if (static_cast<double>(k.largest_sum) * static_cast<double>(most) >= 2147483648.0)
      return false;
    if (k.largest_sum * most <= 32767) {
      sums<int16_t>(g, k, scratch.events, reaches, step, scratch.shorts, y);
    } else {
      if (scratch.longs.size() == 0) scratch.longs = Lines<int32_t>(g.places() * k.padded);
      sums<int32_t>(g, k, scratch.events, reaches, step, scratch.longs, y);
    }
    return true;
  }

  template <class S>
  static void sums(const Geometry& g, const Kernels& k, const std::vector<Events>& planes,
                   const Reaches& reaches, const Input& step, Lines<S>& total, float* y) {
    const int64_t fan = g.channels / g.groups;
    for (int64_t group = 0; group < g.groups; group++) {
      total.fill(S(0));
      for (int64_t c = group * fan; c < (group + 1) * fan; c++) {
        const Events& events = planes[static_cast<size_t>(c)];
        const int16_t* weights = k.rows.data() + c * k.channel;
        if (events.ones) {
          Plane<S, true>::run(g, k, events, reaches, weights, total.data());
        } else {
          Plane<S, false>::run(g, k, events, reaches, weights, total.data());
        }
      }
      const int64_t first = group * k.group_outputs;
      const float* gain = step.as<float>() + (step.size == 1 ? 0 : first);
      Give<S>::run(total.data(), g.places(), k.padded, k.group_outputs, gain, step.size,
                   y + first * g.places());
    }
  }

  Geometry geometry(const Input& x, const Kernels& k) const {
    Geometry g{};
    g.batch = x.shape[0] * x.shape[1];
    g.channels = x.shape[2];
    g.height = x.shape[3];
    g.width = x.shape[4];
    g.outputs = k.shape[0];
    g.groups = group_;
    g.kernel_height = k.shape[2];
    g.kernel_width = k.shape[3];
    g.stride_y = placing_.strides[0];
    g.stride_x = placing_.strides[1];
    g.pad_y = placing_.pads[0];
    g.pad_x = placing_.pads[1];
    g.dilation_y = placing_.dilations[0];
    g.dilation_x = placing_.dilations[1];
    if (g.channels != k.shape[1] * g.groups)
      throw CallError("a weight for " + std::to_string(k.shape[1] * g.groups) +
                      " channels does not fit an input of " + text(x.shape));
    g.out_height = places_along(g.height, placing_.pads[0] + placing_.pads[2], g.kernel_height,
                                g.stride_y, g.dilation_y);
    g.out_width = places_along(g.width, placing_.pads[1] + placing_.pads[3], g.kernel_width,
                               g.stride_x, g.dilation_x);
    if (g.out_height < 0 || g.out_width < 0)
      throw CallError("an image of " + text(x.shape) + " is smaller than the kernel");
    return g;
  }

  // The whole call, by ONNX Runtime's convolution of floats.
  void of_floats(OrtKernelContext* raw, const Input& x, const Kernels& k, const Geometry& g,
                 const Input& step, float* y) const {
    std::vector<float> cast;
    const float* data = x.as<float>();
    if (x.type == ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT8) {
      cast.assign(x.as<uint8_t>(), x.as<uint8_t>() + x.size);
      data = cast.data();
    }
    const auto memory = Ort::MemoryInfo::CreateCpu(OrtArenaAllocator, OrtMemTypeDefault);
    const auto tensor = [&](const float* values, std::vector<int64_t> shape) {
      return Ort::Value::CreateTensor<float>(memory, const_cast<float*>(values),
                                             static_cast<size_t>(product(shape)), shape.data(),
                                             shape.size());
    };
    const Ort::Value images = tensor(data, {g.batch, g.channels, g.height, g.width});
    const Ort::Value weight =
        tensor(k.floats.data(), {k.shape[0], k.shape[1], k.shape[2], k.shape[3]});
    Ort::Value maps = tensor(y, {g.batch, g.outputs, g.out_height, g.out_width});
    const OrtValue* in[] = {images, weight};
    OrtValue* out[] = {maps};
    Ort::Op& conv = const_cast<Ort::Op&>(conv_);  // the wrapper's Invoke is not const
    conv.Invoke(raw, in, 2, out, 1);
    for (int64_t i = 0; i < g.batch * g.outputs; i++) {
      const float gain = step.as<float>()[step.size == 1 ? 0 : i % g.outputs];
      for (int64_t p = 0; p < g.places(); p++) y[i * g.places() + p] *= gain;
    }
  }

  Placing placing_;
  int64_t group_ = 1;
  Ort::Op conv_{nullptr};
  std::shared_ptr<const Kernels> packed_;
};

const RegisterSynapse<ConvKernel> kernel;

}  // namespace
}  // namespace synapse
