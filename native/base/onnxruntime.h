// ONNX Runtime's C++ API, initialised by hand: the library is loaded into a process that brings its
// own ONNX Runtime, and `RegisterCustomOps` receives that one's function table.
#pragma once

#define ORT_API_MANUAL_INIT
#include <onnxruntime_cxx_api.h>
#undef ORT_API_MANUAL_INIT
