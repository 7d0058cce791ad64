// Convolutions with integer weights, plain, transposed, complex and with a bias: see
// convolution/kernel.h.
#include "convolution/kernel.h"

namespace synapse {
namespace {

const RegisterSynapse<Convolution<false, 1>> conv;
const RegisterSynapse<Convolution<false, 2>> complex_conv;
const RegisterSynapse<Convolution<true, 1>> conv_transpose;
const RegisterSynapse<Convolution<true, 2>> complex_conv_transpose;
const RegisterSynapse<Convolution<false, 1, true>> biased_conv;
const RegisterSynapse<Convolution<true, 1, true>> biased_conv_transpose;

}  // namespace
}  // namespace synapse
