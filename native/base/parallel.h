// Parallel loops on ONNX Runtime's threads.
#pragma once

#include <cstdint>

#include "base/onnxruntime.h"

namespace synapse {

// Runs work(begin, end) over [0, total) in pieces of at least `least`.
template <class Work>
void parallel(const Ort::KernelContext& context, int64_t total, int64_t least, const Work& work) {
  if (total <= 0) return;
  constexpr int64_t kPieces = 16;
  if (least < 1) least = 1;
  int64_t pieces = (total + least - 1) / least;
  if (pieces > kPieces) pieces = kPieces;
  if (pieces <= 1) {
    work(int64_t{0}, total);
    return;
  }
  struct Shared {
    const Work& work;
    int64_t total, pieces;
  } shared{work, total, pieces};
  context.ParallelFor(
      [](void* data, size_t index) {
        const Shared& s = *static_cast<const Shared*>(data);
        const int64_t i = static_cast<int64_t>(index);
        s.work(s.total * i / s.pieces, s.total * (i + 1) / s.pieces);
      },
      static_cast<size_t>(pieces), 0, &shared);
}

}  // namespace synapse
