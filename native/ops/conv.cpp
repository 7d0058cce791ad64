// Convolutions, plain, transposed and complex, with a bias, with integer weights
// (convolution/kernel.h) and with float weights (convolution/float_kernel.h).
#include "convolution/float_kernel.h"
#include "convolution/kernel.h"

namespace synapse {
namespace {

const RegisterSynapse<Convolution<false, 1>> conv;
const RegisterSynapse<Convolution<false, 2>> complex_conv;
const RegisterSynapse<Convolution<true, 1>> conv_transpose;
const RegisterSynapse<Convolution<true, 2>> complex_conv_transpose;
const RegisterSynapse<Convolution<false, 1, true>> biased_conv;
const RegisterSynapse<Convolution<true, 1, true>> biased_conv_transpose;

const RegisterOp float_conv(FloatConvolution<false, 1, false>::declaration());
const RegisterOp float_complex_conv(FloatConvolution<false, 2, false>::declaration());
const RegisterOp float_transpose(FloatConvolution<true, 1, false>::declaration());
const RegisterOp float_complex_transpose(FloatConvolution<true, 2, false>::declaration());
const RegisterOp float_biased_conv(FloatConvolution<false, 1, true>::declaration());
const RegisterOp float_biased_transpose(FloatConvolution<true, 1, true>::declaration());

}  // namespace
}  // namespace synapse
