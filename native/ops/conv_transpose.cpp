// Transposed convolution with integer weights, of one kernel or of a real and an imaginary one: see
// convolution/kernel.h.
#include "convolution/kernel.h"

namespace synapse {
namespace {

const RegisterSynapse<Convolution<true, 1>> real;
const RegisterSynapse<Convolution<true, 2>> complex;

}  // namespace
}  // namespace synapse
