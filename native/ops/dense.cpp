// Dense synapses with integer weights, with float weights, and both fused with their neurons: see
// dense/dense.h, dense/float_dense.h and dense/fused.h.
#include "dense/dense.h"
#include "dense/float_dense.h"
#include "dense/fused.h"

namespace synapse {
namespace {

const RegisterSynapse<Dense<1>> real;
const RegisterSynapse<Dense<2>> complex;
const RegisterSynapse<Dense<1, true>> biased;
const RegisterOp float_real(dense_alone<FloatDense<1, false>>());
const RegisterOp float_complex(dense_alone<FloatDense<2, false>>());

// A product of float inputs and the sum with a bias, which are no nodes of ours.
Declaration dense_and_bias() {
  Declaration op = dense_alone<FloatDense<1, true>>("DenseAndBias");
  op.fused = true;
  return op;
}
const RegisterOp float_biased(dense_and_bias());

}  // namespace

void register_fused_dense(const Declaration& neuron, int currents,
                          FusedNeuron (*make)(const OrtKernelInfo*)) {
  if (currents == 1) {
    RegisterOp(dense_and<Dense<1>>(neuron, make));
    RegisterOp(dense_and<Dense<1, true>>(neuron, make));
    RegisterOp(dense_and<FloatDense<1, true>>(neuron, make));
  } else {
    RegisterOp(dense_and<Dense<2>>(neuron, make));
    RegisterOp(dense_and<FloatDense<2, true>>(neuron, make));
  }
}

}  // namespace synapse
