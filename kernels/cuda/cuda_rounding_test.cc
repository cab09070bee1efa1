// Rounding to fp8 and fp4 by the CUDA ops under the simulator: the reference's bits over
// many magnitudes, at every midpoint, and in groups that are damaged; in place and into
// packed rows.
#include <cmath>
#include <cstdint>
#include <iterator>
#include <limits>
#include <string>
#include <vector>

#include "gtest/gtest.h"

#include "kernels/cuda/cuda_ops.h"
#include "kernels/reference/reference_ops.h"
#include "tests/testing/simulated_device.h"

namespace tessera::kernels::cuda {
namespace {

// Rows of [n, cols]: multiples of 1/64 of several powers of two, which have all midpoints
// of either format among them, then zeros, a NaN and an infinity.
std::vector<float> HardRows(int64_t cols) {
  std::vector<float> values;
  for (const float unit :
       {0x1p-149F, 0x1p-40F, 0x1p-16F, 0x1p-6F, 0x1p-3F, 1.0F, 0x1.8p9F, 0x1p119F}) {
    for (int64_t i = 0; i < cols; ++i) {
      const auto step = static_cast<float>(i * 7 % 449);
      values.push_back((i % 3 == 0 ? -step : step) * unit);
    }
  }
  const float infinity = std::numeric_limits<float>::infinity();
  for (const float last : {0.0F, -0.0F, std::nanf(""), -infinity}) {
    values.insert(values.end(), static_cast<size_t>(cols - 1), 0.5F * std::abs(last));
    values.back() = 0;
    values.push_back(last);
  }
  return values;
}

TEST(CudaRounding, FakeQuantizationHasTheReferencesBits) {
  for (uint64_t seed = 1; seed <= kSeeds; ++seed) {
    for (const int64_t cols : {1, 33, 450}) {
      SimulatedDevice device(seed);
      std::vector<TensorView> views;
      for (int i = 0; i < 3; ++i) {
        const TensorView hard = device.Floats(HardRows(cols));
        views.push_back(hard.Reshape({hard.dim(0) / cols, cols}));
        views.push_back(device.Random({5, 3, cols}));
      }
      device.Upload();
      for (size_t i = 0; i < 2; ++i) {
        FakeQuantizeE4M3(device.stream(), device.On(views[i]));
        FakeQuantizeFp4(device.stream(), device.On(views[i + 2]), Fp4Scale::kE8M0);
        FakeQuantizeFp4(device.stream(), device.On(views[i + 4]), Fp4Scale::kE4M3);
        reference::FakeQuantizeE4M3<float>(views[i]);
        reference::FakeQuantizeFp4<float>(views[i + 2], Fp4Scale::kE8M0);
        reference::FakeQuantizeFp4<float>(views[i + 4], Fp4Scale::kE4M3);
      }
      device.ExpectEqual(std::to_string(cols) + " columns");
    }
  }
}

// Rows of e2m1 codes times a scale that was made from a larger value: the usual scale
// does not hold them exactly, and half of that scale is none.
std::vector<float> RoundedRows(int64_t cols) {
  std::vector<float> values;
  for (const float code : {4.0F, 3.0F, 2.0F, 1.5F, 1.0F, 0.5F}) {
    for (int64_t i = 0; i < cols; ++i) {
      const float other = i % 4 == 3 ? 0.0F : -0.5F;
      values.push_back((i % 2 == 0 ? code : other) * 0x1.2p-6F);
    }
  }
  return values;
}

TEST(CudaRounding, StoredRowsHaveTheReferencesBitsInEveryFormat) {
  constexpr int64_t kCols = 46;
  const RowFormat formats[] = {RowFormat::Plain(kCols),
                               {RowCode::kE4M3, RowScale::kF32, kCols, 40, 16},
                               {RowCode::kE4M3, RowScale::kE8M0, kCols, 40, 16},
                               {RowCode::kE4M3, RowScale::kE8M0, kCols, kCols, 40},
                               {RowCode::kFp4, RowScale::kE8M0, kCols, kCols, 32},
                               {RowCode::kFp4, RowScale::kE4M3, kCols, 40, 16}};
  for (uint64_t seed = 1; seed <= kSeeds; ++seed) {
    for (const RowFormat& format : formats) {
      SimulatedDevice device(seed);
      const TensorView hard = device.Floats(HardRows(kCols));
      const TensorView rows[] = {hard.Reshape({hard.dim(0) / kCols, kCols}),
                                 device.Random({5, kCols}),
                                 device.Floats(RoundedRows(kCols)).Reshape({6, kCols})};
      const TensorView slots[] = {device.Ints({3, 19, -1, 0, 7, 8, 11, 2, 4, 1, 18, 6}),
                                  device.Ints({15, 17, 16, -1, 9}),
                                  device.Ints({5, 13, 10, 12, 14, 16})};
      const CacheView cache = format.is_packed()
                                  ? device.Packed(device.Random({5, 4, kCols}), format)
                                  : CacheView(device.Random({5, 4, kCols}));
      device.Upload();
      for (size_t i = 0; i < std::size(rows); ++i) {
        StorePaged(device.stream(), device.On(rows[i]), device.On(slots[i]),
                   device.On(cache));
        reference::StorePaged<float>(rows[i], slots[i], cache);
      }
      device.ExpectEqual("row of " + std::to_string(format.packed_bytes()) + " bytes");
    }
  }
}

}  // namespace
}  // namespace tessera::kernels::cuda
