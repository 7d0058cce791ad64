// Convolutions with integer weights, plain and transposed, real and complex:
//
//   y[n, o, i, t] = scale[o] * sum_{c, k} weight[o, c, k] * x[n, c, r(i, k), t],
//   y[n, o, r(i, k), t] = scale[o] * sum over all i, c, k of weight[c, o, k] * x[n, c, i, t]
//
// plus bias[o] in the biased forms, with r(i, k) = i * stride + k * dilation - pad along height and
// along width, and groups.
//
// Transposed convolutions and those with a stride of 1 scatter (scatter.h): every event adds the
// weights of its neighbourhood to the sums around it, and neighbouring weights of a kernel's row
// reach neighbouring sums. With larger strides every output gathers its events instead (gather.h),
// where that pays. Where few inputs are zero, or kernels are small, all products are computed
// (direct.h). Inputs that are no integers go through ONNX Runtime's own operators.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <memory>
#include <optional>
#include <type_traits>
#include <vector>

#include "base/call.h"
#include "base/memory.h"
#include "base/op.h"
#include "convolution/direct.h"
#include "convolution/gather.h"
#include "convolution/scaled_output.h"
#include "convolution/scatter.h"
#include "convolution/weights.h"
#include "synapse/events.h"

namespace synapse {

// QuantizedConv, QuantizedConvTranspose, their complex twins, and those of one part with a bias.
template <bool transposed, int parts, bool biased = false>
class Convolution : public Kernel {
  static_assert(parts == 1 || !biased);

 public:
  static constexpr const char* kName =
      biased       ? (transposed ? "QuantizedBiasedConvTranspose" : "QuantizedBiasedConv")
      : transposed ? (parts == 2 ? "QuantizedComplexConvTranspose" : "QuantizedConvTranspose")
                   : (parts == 2 ? "QuantizedComplexConv" : "QuantizedConv");
  static constexpr int kParts = parts, kBiases = biased;
  static constexpr ONNXTensorElementDataType kInput = kAny;

  static void infer(const ShapeInference& shapes) {
    for (int k = 0; k < parts; k++) shapes.image(0, 1 + k, k, transposed);
  }

  explicit Convolution(const OrtKernelInfo* info)
      : attributes_(Ort::ConstKernelInfo(info)),
        group_(Ort::ConstKernelInfo(info).GetAttribute<int64_t>("group")),
        float_conv_(info, transposed ? "ConvTranspose" : "Conv", 11,
                    window_attributes(attributes_, group_)) {
    std::vector<Input> weights;
    for (size_t k = 1; k <= parts; k++)
      if (const auto value = constant_input(info, k)) weights.emplace_back(value);
    if (weights.size() == parts) {
      weights_ = pack(weights);
#if defined(SYNAPSE_X86)
      if (!transposed && can_gather(*weights_, attributes_, group_))
        gather_weights_ = GatherWeights(weights);
      if (!transposed && parts == 1 && group_ == 1) direct_weights_ = DirectWeights(weights[0]);
#endif
    }
  }

  void compute(const Ort::KernelContext& context) const override {
    const Input x(context, 0);
    if (x.shape.size() != 5)
      throw CallError("the input needs the axes (T, N, C, H, W), got ", x.shape);
    const bool bytes = x.type == kUint8;
    if (!bytes && x.type != kFloat) throw CallError("the input must be float32 or uint8");
    std::vector<Input> weights;
    for (size_t k = 0; k < parts; k++) weights.emplace_back(context, 1 + k);
    const std::shared_ptr<const ConvWeights> w = weights_ ? weights_ : pack(weights);
    if (x.shape[2] != w->channels)
      throw CallError("a weight for ", w->channels, " channels does not fit an input of ", x.shape);
    const Window window = attributes_.over(x.shape, w->shape, transposed);
    const int64_t batch = x.shape[0] * x.shape[1];
    const ConvGeometry g{window, transposed, batch, w->channels, w->outputs, group_};
    const Shape shape = {x.shape[0], x.shape[1], g.outputs, g.out_height, g.out_width};
    Outputs out;
    const Input bias(context, biased ? 1 + 2 * parts : 0);
    if (biased && bias.size != g.outputs)
      throw CallError("a bias of shape ", bias.shape, " does not fit ", g.outputs, " outputs");
    if (biased) out.bias = bias.template as<float>();
    for (size_t k = 0; k < parts; k++) {
      out.scale[k] = weight_scale(Input(context, 1 + parts + k), g.outputs, "outputs");
      out.y[k] = float_output(context, k, shape);
    }
    const int64_t image = g.channels * g.height * g.width;
    if (g.batch * image == 0) {  // sums without inputs are zero
      for (float* y : out.y)
        for (int64_t i = 0; i < g.batch * g.outputs; i++)
          std::fill_n(y + i * g.positions(), g.positions(), biased ? out.bias[i % g.outputs] : 0);
      return;
    }
    const ScatterTable table(g, *w);
    std::atomic<bool> integers{true};
    const int64_t work = 1 + image / 4 + parts * g.outputs * g.positions();
    parallel(context, g.batch, (1 << 14) / work + 1, [&](int64_t from, int64_t to) {
      const auto loan = scratch_.borrow([&](const Scratch& kept) { return kept.fits(g); },
                                        [&] { return std::make_unique<Scratch>(g); });
      Scratch& scratch = *loan;
      for (int64_t b = from; b < to && integers; b++) {
        const Outputs here = out.at(b * g.outputs * g.positions());
        const bool done = bytes
                              ? run_image(g, *w, x.as<uint8_t>() + b * image, table, scratch, here)
                              : run_image(g, *w, x.as<float>() + b * image, table, scratch, here);
        if (!done) integers = false;
      }
    });
    if (!integers) run_floats(context, x, *w, g, out);
  }

 private:
  // The output and the weight scale of every part, and the bias of the only one.
  struct Outputs {
    float* y[parts];
    WeightScale scale[parts];
    const float* bias = nullptr;

    Outputs at(int64_t offset) const {
      Outputs moved = *this;
      for (float*& y : moved.y) y += offset;
      return moved;
    }
  };

  std::shared_ptr<const ConvWeights> pack(const std::vector<Input>& weights) const {
    return std::make_shared<const ConvWeights>(weights, group_, attributes_, transposed);
  }

  struct Scratch {
    ConvGeometry geometry;
    std::vector<Events> events;
    EventsByPosition events_by_position;
    AlignedVector<int16_t> short_sums;
    AlignedVector<int32_t> long_sums;
    int64_t count = -1;  // of the last image's events, if there was one
    AlignedVector<float> float_sums;
    AlignedVector<float> level;  // 1 where an input is at least a number, else 0
#if defined(SYNAPSE_X86)
    std::optional<SpikeGather> gather;  // made when it is first needed
    std::optional<DirectConv> direct;   // likewise
#endif

    explicit Scratch(const ConvGeometry& g)
        : geometry(g), events(g.channels, Events(g.height * g.width)) {}

    // Whether the sizes are those of this scratch memory, apart from the batch.
    bool fits(const ConvGeometry& g) const {
      return geometry.channels == g.channels && geometry.height == g.height &&
             geometry.width == g.width && geometry.kernel_height == g.kernel_height &&
             geometry.kernel_width == g.kernel_width;
    }
  };

  // Sums are read in blocks of channels from the beginning of a part on, and of positions. So there
  // is room for one more block of either after the last sum.
  template <class S>
  static S* room(AlignedVector<S>& sums, int64_t positions, int64_t padded) {
    const int64_t count = (positions + kOutputBlock) * padded + kOutputBlock;
    if (sums.size() < count) sums = AlignedVector<S>(count);
    return sums.data();
  }

  // Computes one image. False where an input is no integer or where a sum could overflow 32 bits:
  // the whole call then goes through ONNX Runtime's operator, which writes all outputs.
  template <class X>
  bool run_image(const ConvGeometry& g, const ConvWeights& w, const X* x, const ScatterTable& table,
                 Scratch& scratch, const Outputs& out) const {
    const int64_t positions = g.height * g.width;
#if defined(SYNAPSE_X86)
    static const int vectors = instruction_level();
    if constexpr (std::is_same_v<X, float>) {
      if (vectors >= 3 && direct_weights_.pairs > 0 && run_directly(g, w, x, scratch, out))
        return true;
      scratch.count = 0;
      // Nearly all images hold spikes. One with anything else is read a second time.
      const auto read = [&](const float* from, int64_t first, int64_t last) {
        return scratch.events_by_position.read_spikes(from, last - first, w.channel, positions);
      };
      const auto read_spikes = [&](int64_t first, int64_t last, int64_t) {
        return read(x + first * positions, first, last);
      };
      const auto read_level = [&](int64_t first, int64_t last, int64_t level) {
        const int64_t count = (last - first) * positions;
        if (scratch.level.size() < count) scratch.level = AlignedVector<float>(count);
        at_least(x + first * positions, count, static_cast<float>(level), scratch.level.data());
        return read(scratch.level.data(), first, last);
      };
      if (vectors >= 3 && w.largest_sum < 2147483648 / kMostLevels) {
        const bool gathers = gather_weights_.count > 0;
        if (!gathers && shortest_sums<true>(g, w, 1, table, scratch, out, read_spikes)) return true;
        const int64_t levels = levels_of(x, g.channels * positions);
        if (levels > 1)
          return shortest_sums<true>(g, w, levels, table, scratch, out, read_level, levels);
      }
    }
#endif
    int64_t most = 1;
    bool ones = true;
    for (int64_t c = 0; c < g.channels; c++) {
      Events& events = scratch.events[c];
      events.read(x + c * positions, positions);
      if (!events.integers) return false;
      ones = ones && events.ones;
      if (!events.ones)
        for (int64_t e = 0; e < events.count; e++)
          most = std::max<int64_t>(most, std::abs(events.value[e]));
    }
    if (static_cast<double>(w.largest_sum) * static_cast<double>(most) >= 2147483648.0)
      return false;
#if defined(SYNAPSE_X86)
    if (ones && gather_weights_.count > 0 && gather_pays(g, scratch.events)) {
      int32_t* total = room(scratch.long_sums, g.out_width, gather_weights_.padded);
      if (!scratch.gather) scratch.gather.emplace(g, gather_weights_);
      scratch.gather->read(scratch.events);
      for (const Events& events : scratch.events) scratch.count += events.count;
      for (int64_t y = 0; y < g.out_height; y++) {
        scratch.gather->row(y, total);
        write_outputs(g, w, total, g.out_width, gather_weights_.padded, 0, out.at(y * g.out_width));
      }
      return true;
    }
#endif
    const auto read = [&](int64_t first, int64_t last, int64_t) {
      scratch.events_by_position.read(scratch.events, first, last, w.channel, positions, ones);
      return true;
    };
    return ones ? shortest_sums<true>(g, w, most, table, scratch, out, read)
                : shortest_sums<false>(g, w, most, table, scratch, out, read);
  }

#if defined(SYNAPSE_X86)
  // Computes one image by all its products. False where the events of an image like the last one
  // are less work, where an input is no integer, or where a sum could overflow 32 bits.
  bool run_directly(const ConvGeometry& g, const ConvWeights& w, const float* x, Scratch& scratch,
                    const Outputs& out) const {
    if (!scratch.direct) scratch.direct.emplace(g);
    DirectConv& direct = *scratch.direct;
    const auto pays = [&](int64_t events) {
      return direct.pays(direct_weights_, events, gather_weights_.count > 0);
    };
    const bool known = scratch.count >= 0;
    if ((known && !pays(scratch.count)) || !direct.read(x)) return false;
    scratch.count = direct.events;
    const double largest = static_cast<double>(w.largest_sum) * static_cast<double>(direct.most);
    if (largest >= 2147483648.0 || (!known && !pays(scratch.count))) return false;
    int32_t* total = room(scratch.long_sums, g.positions(), w.padded);
    direct.run(direct_weights_, total, w.padded);
    write_outputs(g, w, total, g.positions(), w.padded, 0, out);
    return true;
  }
#endif

  // Computes sums in 16 bits where no sum can overflow them, else in 32, for inputs of magnitudes
  // up to `most`. A sum of weights times inputs is at most largest_sum * most, whatever the order.
  // `read` sorts the events of some channels, once for each of `levels`; where it returns false, so
  // does this function.
  template <bool ones, class Read>
  static bool shortest_sums(const ConvGeometry& g, const ConvWeights& w, int64_t most,
                            const ScatterTable& table, Scratch& scratch, const Outputs& out,
                            const Read& read, int64_t levels = 1) {
    if (w.largest_sum * most <= 32767)
      return sums<ones>(g, w, table, scratch, room(scratch.short_sums, g.positions(), w.padded),
                        out, read, levels);
    return sums<ones>(g, w, table, scratch, room(scratch.long_sums, g.positions(), w.padded), out,
                      read, levels);
  }

  template <bool ones, class S, class Read>
  static bool sums(const ConvGeometry& g, const ConvWeights& w, const ScatterTable& table,
                   Scratch& scratch, S* total, const Outputs& out, const Read& read,
                   int64_t levels) {
    // the weights of so many channels stay in the second-level cache
    const int64_t channels_at_once =
        std::clamp<int64_t>((1 << 17) / std::max<int64_t>(w.channel, 1), 1,
                            std::max<int64_t>(1, INT32_MAX / (g.height * g.width)));
    const int64_t fan = g.channels / g.groups;
    for (int64_t group = 0; group < g.groups; group++) {
      std::fill_n(total, g.positions() * w.padded, S(0));
      const int64_t end = (group + 1) * fan;
      for (int64_t first = group * fan; first < end; first += channels_at_once) {
        for (int64_t level = 1; level <= levels; level++) {
          if (!read(first, std::min(end, first + channels_at_once), level)) return false;
          scratch.count += scratch.events_by_position.total(g.height * g.width);
          scatter_add<S, ones>(g, scratch.events_by_position, table,
                               w.rows.data() + first * w.channel, total);
        }
      }
      write_outputs(g, w, total, g.positions(), w.padded, group * w.group_outputs, out);
    }
    return true;
  }

  // Writes some positions of the output channels of a group, of which `first` is the first, for
  // every part.
  template <class S>
  static void write_outputs(const ConvGeometry& g, const ConvWeights& w, const S* total,
                            int64_t positions, int64_t padded, int64_t first, const Outputs& out) {
    const int64_t outputs = w.group_outputs, all = g.positions();
    for (int p = 0; p < parts; p++) {
      const WeightScale scale = out.scale[p].from(first);
      float* y = out.y[p] + first * all;
      const float* bias = biased ? out.bias + first : nullptr;
      ScaledOutput<S, biased>{total + p * outputs, positions, padded, outputs, scale, bias, y, all}
          .write();
    }
  }

  // Computes the whole call in floats: small kernels here, others by ONNX Runtime's Conv or
  // ConvTranspose.
  void run_floats(const Ort::KernelContext& context, const Input& x, const ConvWeights& w,
                  const ConvGeometry& g, const Outputs& out) const {
#if defined(SYNAPSE_X86)
    // ONNX Runtime multiplies matrices, which it makes of the images first
    constexpr int64_t few = 64;
    static const int vectors = instruction_level();
    const bool small = direct_weights_.pairs > 0 && g.channels * direct_weights_.taps <= few;
    if (vectors >= 3 && small && x.type == kFloat) {
      const int64_t image = g.channels * g.height * g.width;
      const int64_t work = 1 + g.outputs * g.positions() * g.channels;
      parallel(context, g.batch, (1 << 14) / work + 1, [&](int64_t from, int64_t to) {
        const auto loan = scratch_.borrow([&](const Scratch& kept) { return kept.fits(g); },
                                          [&] { return std::make_unique<Scratch>(g); });
        if (!loan->direct) loan->direct.emplace(g);
        float* total = room(loan->float_sums, g.positions(), w.padded);
        for (int64_t b = from; b < to; b++) {
          loan->direct->run_floats(direct_weights_, x.as<float>() + b * image, total, w.padded);
          write_outputs(g, w, total, g.positions(), w.padded, 0,
                        out.at(b * g.outputs * g.positions()));
        }
      });
      return;
    }
#endif
    std::vector<float> cast;
    const float* data = x.as<float>();
    if (x.type == kUint8) {
      cast.assign(x.as<uint8_t>(), x.as<uint8_t>() + x.size);
      data = cast.data();
    }
    for (int part = 0; part < parts; part++) {
      float* y = out.y[part];
      float_conv_.run(context, {data, {g.batch, g.channels, g.height, g.width}},
                      {w.floats[part].data(), {w.shape.begin(), w.shape.end() - 1}}, y,
                      {g.batch, g.outputs, g.out_height, g.out_width});
      for (int64_t i = 0; i < g.batch * g.outputs; i++) {
        const float scale = out.scale[part][i % g.outputs];
        const float bias = biased ? out.bias[i % g.outputs] : 0;
        float* at = y + i * g.positions();
        for (int64_t p = 0; p < g.positions(); p++) {
          at[p] *= scale;
          if (biased) at[p] += bias;
        }
      }
    }
  }

  const WindowAttributes attributes_;
  const int64_t group_;
  const FloatOperator float_conv_;
  std::shared_ptr<const ConvWeights> weights_;
  mutable ScratchPool<Scratch> scratch_;
#if defined(SYNAPSE_X86)
  GatherWeights gather_weights_;
  DirectWeights direct_weights_;
#endif
};

}  // namespace synapse
