// A Scan whose body holds elementwise operators alone: any neuron that no other kernel knows.
//
// No file has this op. A session puts it in the place of such a Scan (synapse_onnx/runtime/
// elementwise.py), with the body as a program: scan/program.h has its attributes. Inputs are the
// states, the sequences (T, ...), and what the body captures; outputs are the last states and
// sequences.
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "base/memory.h"
#include "base/op.h"
#include "scan/plan.h"
#include "scan/program.h"
#include "scan/run.h"

namespace synapse {
namespace {

class ElementwiseScan : public Kernel {
 public:
  explicit ElementwiseScan(const OrtKernelInfo* info) : program_(info) {}

  void compute(const Ort::KernelContext& context) const override {
    ScanCall call{};
    std::vector<Shape> shapes;
    int64_t steps = -1;
    for (int v = 0; v < program_.inputs; v++) {
      Input input(context, v);
      if (program_.is_sequence(v)) {
        if (input.shape.empty()) throw CallError("a sequence needs an axis of time");
        if (steps >= 0 && steps != input.shape[0])
          throw CallError("sequences of ", steps, " and ", input.shape[0], " steps");
        steps = input.shape[0];
        input.shape.erase(input.shape.begin());
      }
      call.inputs.push_back(input.data);
      shapes.push_back(std::move(input.shape));
    }
    call.steps = steps;
    const std::shared_ptr<const Plan> plan = plan_for(shapes);
    for (size_t k = 0; k < program_.results.size(); k++) {
      Shape shape = plan->shapes[program_.results[k]];
      if (static_cast<int>(k) >= program_.states) shape.insert(shape.begin(), steps);
      call.outputs.push_back(context.GetOutput(k, shape).GetTensorMutableRawData());
    }
    const int64_t elements = plan->sizes[plan->main];
    if (elements == 0) {
      run_block(*plan, call, 0, 0);  // states without an axis of the batch change all the same
      return;
    }
    parallel_blocks(context, elements, plan->block, steps,
                    [&](int64_t first, int64_t count) { run_block(*plan, call, first, count); });
  }

 private:
  void run_block(const Plan& plan, const ScanCall& call, int64_t first, int64_t count) const {
    const auto memory =
        pool_.borrow([&](const BlockMemory& free) { return free.buffers.size() >= plan.bytes; },
                     [&] {
                       return std::make_unique<BlockMemory>(
                           BlockMemory{AlignedVector<char>(plan.bytes), {}, {}, {}});
                     });
    BlockRun(program_, plan, call, *memory, first, count).run();
  }

  // The plan for inputs of these shapes; that of the last call is kept.
  std::shared_ptr<const Plan> plan_for(const std::vector<Shape>& shapes) const {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (!plan_ || shapes != planned_) {
      plan_ = std::make_shared<const Plan>(program_, shapes);
      planned_ = shapes;
    }
    return plan_;
  }

  const Program program_;
  mutable std::mutex mutex_;
  mutable std::shared_ptr<const Plan> plan_;
  mutable std::vector<Shape> planned_;
  mutable ScratchPool<BlockMemory> pool_;
};

Declaration elementwise_scan() {
  Declaration op{"ElementwiseScan",
                 {kAny},
                 {kAny},
                 [](const ShapeInference&) {},
                 make_kernel<ElementwiseScan>};
  op.variadic = true;
  return op;
}

const RegisterOp kernel = elementwise_scan();

}  // namespace
}  // namespace synapse

// The operators that a body may have, as "Add:ff>f Add:dd>d ...": the letters of scan/functions.h.
SYNAPSE_EXPORT const char* synapse_onnx_elementwise() {
  static const std::string text = [] {
    std::string joined;
    for (const auto& function : synapse::FunctionTable::all())
      joined += (joined.empty() ? "" : " ") + function.name + ":" + function.inputs + ">" +
                function.output;
    return joined;
  }();
  return text.c_str();
}
