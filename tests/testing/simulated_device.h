// SimulatedDevice: host arrays and their copies on a simulated GPU, for tests that
// compare the CUDA ops with kernels/reference bit by bit. Made for one seed of values and
// of the simulator's schedule. For tests alone; used by one thread.
#ifndef TESSERA_TESTS_TESTING_SIMULATED_DEVICE_H_
#define TESSERA_TESTS_TESTING_SIMULATED_DEVICE_H_

#include <cstdint>
#include <cstring>
#include <deque>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "gtest/gtest.h"

#include "common/check.h"
#include "kernels/cache_view.h"
#include "kernels/cuda/primitives/device.cuh"
#include "kernels/cuda_sim/sim_machine.h"
#include "kernels/cuda_sim/sim_stream.h"
#include "kernels/row_format.h"
#include "kernels/tensor_view.h"
#include "kernels/weight_view.h"

namespace tessera::kernels::cuda {

inline constexpr uint64_t kSeeds = 3;

struct Format {
  std::string name;
  DType dtype;
  DType scale;
  int64_t block_rows;
  int64_t block_cols;
};
inline const Format kFormats[] = {{"F32", DType::kF32, DType::kF32, 0, 0},
                                  {"BF16", DType::kBF16, DType::kF32, 0, 0},
                                  {"F8F32", DType::kF8E4M3, DType::kF32, 24, 48},
                                  {"F8E8M0", DType::kF8E4M3, DType::kF8E8M0, 24, 48},
                                  {"FP4", DType::kFp4, DType::kF8E8M0, 1, 32}};

class SimulatedDevice {
 public:
  explicit SimulatedDevice(uint64_t seed)
      : machine_(
            std::make_shared<cuda_sim::SimMachine>(cuda_sim::SimOptions{.seed = seed})),
        random_(seed) {
    auto stream = cuda_sim::SimStream::Create(machine_, 0);
    TESSERA_CHECK(stream.ok());
    stream_ = std::move(*stream);
  }

  GpuStream& stream() { return *stream_; }
  const std::shared_ptr<GpuMachine>& machine() { return machine_; }

  // Rows lie 3 values further apart than they are long.
  TensorView Random(std::vector<int64_t> shape) {
    TensorView view;
    view.rank = static_cast<int>(shape.size());
    int64_t stride = 1;
    for (int axis = view.rank - 1; axis >= 0; --axis) {
      const auto at = static_cast<size_t>(axis);
      view.shape[at] = shape[at];
      view.strides[at] = stride;
      stride = stride * shape[at] + 3;
    }
    auto& memory = Memory(static_cast<size_t>(stride) * sizeof(float));
    std::uniform_real_distribution<float> value(-2.0F, 2.0F);
    for (size_t i = 0; i < memory.size() / sizeof(float); ++i) {
      const float number = value(random_);
      std::memcpy(memory.data() + i * sizeof(float), &number, sizeof(float));
    }
    view.data = memory.data();
    return view;
  }
  TensorView Ids(int64_t count, int32_t below) {
    auto& memory = Memory(static_cast<size_t>(count) * sizeof(int32_t));
    for (int64_t i = 0; i < count; ++i) {
      const auto id = static_cast<int32_t>(random_() % static_cast<uint64_t>(below));
      std::memcpy(memory.data() + i * 4, &id, sizeof(id));
    }
    return TensorView(memory.data(), DType::kI32, {count});
  }
  TensorView Ints(const std::vector<int32_t>& values) {
    auto& memory = Memory(values.size() * sizeof(int32_t));
    std::memcpy(memory.data(), values.data(), memory.size());
    return TensorView(memory.data(), DType::kI32, {std::ssize(values)});
  }
  TensorView Floats(const std::vector<float>& values) {
    auto& memory = Memory(values.size() * sizeof(float));
    std::memcpy(memory.data(), values.data(), memory.size());
    return TensorView(memory.data(), DType::kF32, {std::ssize(values)});
  }
  // Never an exponent of all ones: no NaN in any format.
  TensorView Bytes(int64_t rows, int64_t cols) {
    auto& memory = Memory(static_cast<size_t>(rows * cols));
    for (std::byte& value : memory) {
      value = static_cast<std::byte>(random_() & 0xbeU);
    }
    return TensorView(memory.data(), DType::kU8, {rows, cols});
  }
  CacheView Packed(const TensorView& values, const RowFormat& format) {
    const int64_t rows = values.dim(0) * values.dim(1);
    auto& memory = Memory(static_cast<size_t>(rows * format.packed_bytes()));
    for (int64_t row = 0; row < rows; ++row) {
      PackRow(format, values.row<float>(row / values.dim(1), row % values.dim(1)),
              memory.data() + row * format.packed_bytes());
    }
    return {TensorView(memory.data(), DType::kU8,
                       {values.dim(0), values.dim(1), format.packed_bytes()}),
            format};
  }
  // A slice that begins off the grid of its scales.
  WeightView Weight(const Format& format, int64_t rows, int64_t cols) {
    WeightView w;
    w.dtype = format.dtype;
    w.rows = rows + 4;
    w.cols = (cols + 6 + 31) / 32 * 32;
    w.row_bytes =
        static_cast<int64_t>(model::DTypeBytes(w.dtype, static_cast<size_t>(w.cols)));
    auto& values = Memory(static_cast<size_t>(w.rows * w.row_bytes));
    for (size_t i = 0; i < values.size(); ++i) {
      // Never an exponent of all ones: no NaN in any format.
      values[i] = static_cast<std::byte>(random_() & 0xbeU);
    }
    w.data = values.data();
    if (format.block_rows > 0) {
      w.scale_dtype = format.scale;
      w.block_rows = format.block_rows;
      w.block_cols = format.block_cols;
      w.scale_stride = (w.cols + w.block_cols - 1) / w.block_cols;
      const int64_t count = (w.rows + w.block_rows - 1) / w.block_rows * w.scale_stride;
      const bool floats = format.scale == DType::kF32;
      auto& scales = Memory(static_cast<size_t>(count) * (floats ? 4 : 1));
      for (int64_t i = 0; i < count; ++i) {
        const float scale = 0.001F * static_cast<float>(1 + random_() % 99);
        if (floats) {
          std::memcpy(scales.data() + i * 4, &scale, sizeof(scale));
        } else {
          scales[static_cast<size_t>(i)] = static_cast<std::byte>(120 + random_() % 9);
        }
      }
      w.scales = scales.data();
    }
    return w.RowSlice(3, rows).ColSlice(6, cols);
  }

  // Copies all host memory to the device; from then on host arrays are the reference's.
  void Upload() {
    for (const auto& memory : host_) {
      auto device = machine_->Malloc(0, memory.size());
      TESSERA_CHECK(device.ok());
      TESSERA_CHECK(stream_->MemcpyAsync(*device, memory.data(), memory.size()).ok());
      device_.push_back(static_cast<std::byte*>(*device));
    }
  }
  TensorView On(TensorView view) const {
    view.data = const_cast<std::byte*>(DeviceAddress(view.data));
    return view;
  }
  CacheView On(CacheView cache) const {
    cache.rows = On(cache.rows);
    return cache;
  }
  WeightView On(WeightView w) const {
    w.data = w.data == nullptr ? nullptr : DeviceAddress(w.data);
    w.scales = w.scales == nullptr ? nullptr : DeviceAddress(w.scales);
    return w;
  }

  // The host's array of `view` gets the device's bits.
  void Download(const TensorView& view) {
    ASSERT_TRUE(stream_->Synchronize().ok()) << machine_->status();
    for (size_t i = 0; i < host_.size(); ++i) {
      const auto* const at = static_cast<const std::byte*>(view.data);
      if (at >= host_[i].data() && at < host_[i].data() + host_[i].size()) {
        ASSERT_TRUE(
            stream_->MemcpyAsync(host_[i].data(), device_[i], host_[i].size()).ok());
      }
    }
  }
  // All arrays, gaps between rows included, have the bits of the host's.
  void ExpectEqual(const std::string& what) {
    ASSERT_TRUE(stream_->Synchronize().ok()) << what << ": " << machine_->status();
    for (size_t i = 0; i < host_.size(); ++i) {
      std::vector<std::byte> seen(host_[i].size());
      ASSERT_TRUE(stream_->MemcpyAsync(seen.data(), device_[i], seen.size()).ok());
      EXPECT_TRUE(seen == host_[i]) << what << ", array " << i;
    }
  }

 private:
  std::vector<std::byte>& Memory(size_t bytes) { return host_.emplace_back(bytes); }
  const std::byte* DeviceAddress(const void* host) const {
    const auto* const at = static_cast<const std::byte*>(host);
    for (size_t i = 0; i < host_.size(); ++i) {
      if (at >= host_[i].data() && at < host_[i].data() + host_[i].size()) {
        return device_[i] + (at - host_[i].data());
      }
    }
    TESSERA_CHECK(false);
    return nullptr;
  }

  std::shared_ptr<cuda_sim::SimMachine> machine_;
  std::unique_ptr<cuda_sim::SimStream> stream_;
  std::mt19937_64 random_;
  std::deque<std::vector<std::byte>> host_;
  std::vector<std::byte*> device_;
};

}  // namespace tessera::kernels::cuda

#endif  // TESSERA_TESTS_TESTING_SIMULATED_DEVICE_H_
