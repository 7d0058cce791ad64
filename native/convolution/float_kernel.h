// Convolutions with float weights, plain and transposed, real and complex, with and without bias:
//
//   y[n, o, i, t] = sum_{c, k} weight[o, c, k] * x[n, c, r(i, k), t] + bias[o]
//
// and transposed as in kernel.h. Every event adds the weights of its neighbourhood to the sums
// around it. The order of a sum is fixed: from the bias or 0 on, input position after input
// position, at a position channel after channel, each product rounded to float32 before it is
// added. Channels whose weights exceed kWeightsAtOnce are added some at a time.
//
// A call with many events goes through ONNX Runtime's own operators, whose order is their own; so
// does a call with a weight that is infinite or NaN, or no constant.
#pragma once

#include <algorithm>
#include <atomic>
#include <memory>
#include <vector>

#include "base/call.h"
#include "base/memory.h"
#include "base/op.h"
#include "convolution/float_scatter.h"
#include "convolution/float_weights.h"
#include "convolution/scaled_output.h"
#include "convolution/scatter.h"
#include "dense/float_rows.h"

namespace synapse {

// Conv, ConvTranspose and their complex twins; with `biased` a bias lies behind the weights.
template <bool transposed, int parts, bool biased>
class FloatConvolution : public Kernel {
 public:
  static constexpr const char* kName =
      biased       ? (transposed ? "ConvTransposeAndBias" : "ConvAndBias")
      : transposed ? (parts == 2 ? "ComplexConvTranspose" : "ConvTranspose")
                   : (parts == 2 ? "ComplexConv" : "Conv");
  static_assert(!biased || parts == 1, "complex convolutions have no bias");

  static Declaration declaration() {
    const auto infer = [](const ShapeInference& shapes) {
      for (int k = 0; k < parts; k++) shapes.image(0, 1 + k, k, transposed);
    };
    Declaration op{kName, Types(1 + parts + biased, kFloat), Types(parts, kFloat), infer,
                   make_kernel<FloatConvolution>};
    op.fused = biased;
    return op;
  }

  explicit FloatConvolution(const OrtKernelInfo* info)
      : attributes_(Ort::ConstKernelInfo(info)),
        group_(Ort::ConstKernelInfo(info).GetAttribute<int64_t>("group")),
        operator_(info, transposed ? "ConvTranspose" : "Conv", 11,
                  window_attributes(attributes_, group_)) {
    std::vector<Input> weights;
    for (size_t k = 1; k <= parts; k++)
      if (const auto value = constant_input(info, k)) weights.emplace_back(value);
    if (weights.size() == parts)
      weights_ = std::make_shared<const FloatConvWeights>(weights, group_, transposed, true);
  }

  void compute(const Ort::KernelContext& context) const override {
    const Input x(context, 0);
    if (x.shape.size() != 5 && x.shape.size() != 4)
      throw CallError("the input needs the axes (T, N, C, H, W), got ", x.shape);
    std::vector<Input> weights;
    for (size_t k = 0; k < parts; k++) weights.emplace_back(context, 1 + k);
    const auto w =
        weights_ ? weights_
                 : std::make_shared<const FloatConvWeights>(weights, group_, transposed, false);
    Shape images = x.shape;  // of five axes
    if (images.size() == 4) images.insert(images.begin(), 1);
    if (images[2] != w->channels)
      throw CallError("a weight for ", w->channels, " channels does not fit an input of ", x.shape);
    const Window window = attributes_.over(images, w->shape, transposed);
    const ConvGeometry g{window,      transposed, images[0] * images[1],
                         w->channels, w->outputs, group_};
    Shape shape = x.shape;
    std::copy_n(Shape{g.outputs, g.out_height, g.out_width}.begin(), 3, shape.end() - 3);
    const float* bias = nullptr;
    if constexpr (biased) {
      const Input values(context, 1 + parts);
      if (values.size != 0 && values.size != g.outputs)
        throw CallError("a bias of shape ", values.shape, " is not one number for each of ",
                        g.outputs, " outputs");
      if (values.size) bias = values.as<float>();
    }
    float* y[parts];
    for (size_t k = 0; k < parts; k++) y[k] = float_output(context, k, shape);
    const int64_t image = g.channels * g.height * g.width;
    if (product(shape) == 0) return;
    if (image == 0) return fill(g, bias, y);  // outputs without inputs
    if (weights_ && w->finite && by_events(context, x.as<float>(), g, *w)) {
      add_events(context, x.as<float>(), g, *w, bias, y);
    } else {
      run_operator(context, x.as<float>(), g, *w, weights, bias, y);
    }
  }

 private:
  using Sums = AlignedVector<float>;

  // channels are added at a time whose weights are no more numbers than these
  static constexpr int64_t kWeightsAtOnce = 1 << 17;

  struct Scratch {
    FloatEventsByPosition events;
    Sums sums;
  };

  static void fill(const ConvGeometry& g, const float* bias, float* const* y) {
    for (int k = 0; k < parts; k++)
      for (int64_t i = 0; i < g.batch * g.outputs; i++)
        std::fill_n(y[k] + i * g.positions(), g.positions(), bias ? bias[i % g.outputs] : 0.0f);
  }

  // Whether adding the events takes less time than a dense convolution, in estimated nanoseconds of
  // one thread for an average image. They were fitted to six layers of 2 to 64 channels
  // (docs/performance.md): each vector of 16 outputs is cleared and written, each input read, a
  // position with events costs a mispredicted branch, and each event adds vectors of weights. Few
  // input channels make a dense convolution cheap, and a stride makes it dear.
  static bool by_events(const Ort::KernelContext& context, const float* x, const ConvGeometry& g,
                        const FloatConvWeights& w) {
    const int64_t image = g.channels * g.height * g.width, size = g.batch * image;
    std::atomic<int64_t> counted{0};
    parallel(context, size, 1 << 18,
             [&](int64_t from, int64_t to) { counted += CountEvents::run(x + from, to - from); });
    const double events = static_cast<double>(counted) / static_cast<double>(g.batch);
    const double taps = static_cast<double>(w.height * w.width);
    const double reached = transposed ? taps : taps / static_cast<double>(g.stride_y * g.stride_x);
    const double vectors = static_cast<double>(w.padded) / 16;
    const double places = static_cast<double>(g.height * g.width * g.groups);
    const double adding = 10 * static_cast<double>(g.positions() * g.groups) * vectors +
                          0.2 * static_cast<double>(image) + 15 * std::min(events, places) +
                          0.7 * events * reached * vectors;
    const double products = static_cast<double>(image / g.groups * g.outputs * parts) * reached;
    return adding < products / 30;
  }

  void add_events(const Ort::KernelContext& context, const float* x, const ConvGeometry& g,
                  const FloatConvWeights& w, const float* bias, float* const* y) const {
    const ScatterTable table(g, w);
    const int64_t image = g.channels * g.height * g.width;
    const int64_t work = 1 + image / 4 + parts * g.outputs * g.positions();
    parallel(context, g.batch, (1 << 14) / work + 1, [&](int64_t from, int64_t to) {
      // the output is written in blocks of positions and of outputs, which may read more sums
      const int64_t size = (g.positions() + kOutputBlock) * w.padded + kOutputBlock;
      const auto scratch = scratch_.borrow([](const Scratch&) { return true; },
                                           [] { return std::make_unique<Scratch>(); });
      if (scratch->sums.size() < size) scratch->sums = Sums(size);
      for (int64_t b = from; b < to; b++) {
        float* out[parts];
        for (int k = 0; k < parts; k++) out[k] = y[k] + b * g.outputs * g.positions();
        add_image(x + b * image, g, w, table, bias, *scratch, out);
      }
    });
  }

  static void add_image(const float* x, const ConvGeometry& g, const FloatConvWeights& w,
                        const ScatterTable& table, const float* bias, Scratch& scratch,
                        float* const* y) {
    const int64_t in = g.height * g.width, all = g.positions(), outputs = w.group_outputs;
    const int64_t fan = g.channels / g.groups;
    const int64_t at_once = std::max<int64_t>(1, kWeightsAtOnce / std::max<int64_t>(w.channel, 1));
    const float one = 1.0f;
    float* sums = scratch.sums.data();
    for (int64_t group = 0; group < g.groups; group++) {
      const int64_t first_output = group * outputs, end = (group + 1) * fan;
      if (bias == nullptr) {
        std::fill_n(sums, all * w.padded, 0.0f);
      } else {
        for (int64_t p = 0; p < all; p++) {
          std::copy_n(bias + first_output, outputs, sums + p * w.padded);
          std::fill_n(sums + p * w.padded + outputs, w.padded - outputs, 0.0f);
        }
      }
      for (int64_t first = group * fan; first < end; first += at_once) {
        const int64_t count = std::min(end - first, at_once);
        scratch.events.read(x + first * in, count, w.channel, in);
        const float* weights = w.rows.data() + first * w.channel;
        if (scratch.events.ones()) {
          float_scatter_add<true>(g, scratch.events, table, weights, sums);
        } else {
          float_scatter_add<false>(g, scratch.events, table, weights, sums);
        }
      }
      for (int p = 0; p < parts; p++)
        ScaledOutput<float, false>{
            sums + p * outputs,        all, w.padded, outputs, {&one, true}, nullptr,
            y[p] + first_output * all, all}
            .write();
    }
  }

  // Computes the whole call by ONNX Runtime's Conv or ConvTranspose.
  void run_operator(const Ort::KernelContext& context, const float* x, const ConvGeometry& g,
                    const FloatConvWeights& w, const std::vector<Input>& weights, const float* bias,
                    float* const* y) const {
    const int64_t all = g.positions();
    for (int k = 0; k < parts; k++) {
      operator_.run(context, {x, {g.batch, g.channels, g.height, g.width}},
                    {weights[k].template as<float>(), w.shape}, y[k],
                    {g.batch, g.outputs, g.out_height, g.out_width});
      if (bias == nullptr) continue;
      parallel(context, g.batch * g.outputs, (1 << 14) / all + 1, [&](int64_t from, int64_t to) {
        for (int64_t i = from; i < to; i++) {
          const float more = bias[i % g.outputs];
          float* plane = y[k] + i * all;
          for (int64_t p = 0; p < all; p++) plane[p] += more;
        }
      });
    }
  }

  const WindowAttributes attributes_;
  const int64_t group_;
  const FloatOperator operator_;
  std::shared_ptr<const FloatConvWeights> weights_;
  mutable ScratchPool<Scratch> scratch_;
};

}  // namespace synapse
