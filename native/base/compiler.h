// Macros that hide the differences between compilers, and the instruction set of this processor.
//
// The library is compiled for the baseline of its architecture. Faster instructions are chosen at
// run time: by the loader for functions marked SYNAPSE_CLONES, and by `instruction_level` for
// functions written with intrinsics.
#pragma once

// SYNAPSE_CLONES compiles a function for x86-64-v4 (AVX-512), v3 (AVX2) and the baseline, and the
// loader takes the best one. It needs GCC 12 and glibc; elsewhere only the baseline exists. Two
// properties of GCC limit what such a function may look like:
//  - GCC lowers its generic vector types before it clones a function, which leaves them scalar.
//    So the functions are plain loops that the vectoriser handles, or intrinsics without clones.
//  - A loop whose body returns a structure with a `bool` is not vectorised. So the step of a neuron
//    returns a plain `bool`.
#if defined(__x86_64__) && defined(__linux__) && defined(__GLIBC__) && defined(__GNUC__) && \
    !defined(__clang__) && !defined(__CUDACC__) && !defined(SYNAPSE_NO_CLONES)
#if __GNUC__ >= 12
#define SYNAPSE_CLONES __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#endif
#endif
#ifndef SYNAPSE_CLONES
#define SYNAPSE_CLONES
#endif

// SYNAPSE_X86 is defined where intrinsics can be used: on x86, with a compiler that takes the
// instruction set of a single function from an attribute. SYNAPSE_AVX512 is that attribute for
// AVX-512, SYNAPSE_AVX2 for AVX2, SYNAPSE_FMA for AVX2 with multiply-adds; SIMDe's emulation of
// AVX-512 needs none.
#if (defined(__x86_64__) || defined(__i386__)) && defined(__GNUC__) && !defined(__CUDACC__)
#define SYNAPSE_X86
#define SYNAPSE_AVX2 __attribute__((target("avx2")))
#define SYNAPSE_FMA __attribute__((target("avx2,fma")))
#if defined(SYNAPSE_EMULATE_AVX512)
#include "base/avx512_by_simde.h"
#define SYNAPSE_AVX512
#else
#include <immintrin.h>
#define SYNAPSE_AVX512 __attribute__((target("avx512f,avx512bw")))
#endif
#endif

// SYNAPSE_INLINE forces a function inline, so that it is vectorised with the loop that calls it.
// nvcc compiles it for the GPU and for the processor, from one source. SYNAPSE_LAMBDA does the same
// for lambdas, which nvcc inlines by itself.
#if defined(__CUDACC__)
#define SYNAPSE_INLINE __host__ __device__ __forceinline__
#define SYNAPSE_LAMBDA
#elif defined(__GNUC__)
#define SYNAPSE_INLINE inline __attribute__((always_inline))
#define SYNAPSE_LAMBDA __attribute__((always_inline))
#else
#define SYNAPSE_INLINE inline
#define SYNAPSE_LAMBDA
#endif

// SYNAPSE_INDEPENDENT before a loop promises that its iterations do not depend on each other:
// pointers of different arrays never overlap here, which the compiler cannot know.
#if defined(__GNUC__) && !defined(__clang__) && !defined(__CUDACC__)
#define SYNAPSE_INDEPENDENT _Pragma("GCC ivdep")
#elif defined(__clang__)
#define SYNAPSE_INDEPENDENT _Pragma("clang loop vectorize(assume_safety)")
#else
#define SYNAPSE_INDEPENDENT
#endif

// SYNAPSE_EXPORT marks the functions that the library exports.
#if defined(_WIN32)
#define SYNAPSE_EXPORT extern "C" __declspec(dllexport)
#else
#define SYNAPSE_EXPORT extern "C" __attribute__((visibility("default")))
#endif

namespace synapse {

// The vector instructions of this processor: 4 for AVX-512 (x86-64-v4), 3 for AVX2 (x86-64-v3), 0
// for anything less.
inline int instruction_level() {
#if defined(SYNAPSE_EMULATE_AVX512)
  return 4;
#elif defined(SYNAPSE_X86)
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl"))
    return 4;
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) return 3;
#endif
  return 0;
}

}  // namespace synapse
