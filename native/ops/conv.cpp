// Convolution with integer weights, of one kernel or of a real and an imaginary one: see
// convolution/kernel.h.
#include "convolution/kernel.h"

namespace synapse {
namespace {

const RegisterSynapse<Convolution<false, 1>> real;
const RegisterSynapse<Convolution<false, 2>> complex;

}  // namespace
}  // namespace synapse
