// Rounding of groups to fp8 and fp4 in place. A warp makes a group: its maximum by
// shuffles, then each thread its values. Bound by memory: 8 bytes a value, and a
// division. Exact.
#include "kernels/cuda/cuda_ops.h"
#include "kernels/cuda/primitives/device_tensor.cuh"
#include "kernels/cuda/primitives/group_scale.cuh"

namespace tessera::kernels::cuda {
namespace {

constexpr uint32_t kBlock = 256;
constexpr int64_t kGroupsPerBlock = kBlock / kWarpSize;

struct FakeQuantizeKernel {
  static constexpr const char* kName = "FakeQuantizeKernel";
  DeviceRows<float> x;
  GroupCode code;

  TESSERA_DEVICE void operator()(Thread& thread) const {
    const int64_t stride = int64_t{thread.grid_dim().x} * kGroupsPerBlock;
    for (int64_t row = GlobalIndex(thread) / kWarpSize; row < x.rows; row += stride) {
      const int64_t begin = x.Begin(row);
      const float largest = LargestMagnitude(thread, x.span, begin, x.cols);
      const bool damaged = IsNan(largest);
      const float scale = damaged ? largest : GroupScale(code, largest);
      // A thread writes what it alone has read.
      for (int64_t i = begin + thread.lane(); i < begin + x.cols; i += kWarpSize) {
        thread.Store(
            x.span, i,
            damaged ? largest : RoundInGroup(code, thread.Load(x.span, i), scale));
      }
    }
  }
};

void FakeQuantize(GpuStream& stream, const TensorView& x, GroupCode code) {
  const FakeQuantizeKernel kernel = {RowsOf<float>(x), code};
  if (!x.empty()) {
    Launch(stream, EachValueConfig(kernel.x.rows * kWarpSize, kBlock), kernel);
  }
}

}  // namespace

void FakeQuantizeE4M3(GpuStream& stream, TensorView x) {
  FakeQuantize(stream, x, GroupCode::kE4M3);
}

void FakeQuantizeFp4(GpuStream& stream, TensorView x, Fp4Scale scale) {
  FakeQuantize(stream, x,
               scale == Fp4Scale::kE8M0 ? GroupCode::kFp4E8M0 : GroupCode::kFp4E4M3);
}

}  // namespace tessera::kernels::cuda
