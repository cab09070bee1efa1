#include <string>

#include "absl/status/status.h"
#include "gtest/gtest.h"

#include "kernels/kernel_backend.h"

namespace tessera::kernels {
namespace {

TEST(CreateBackend, NamesTheArithmeticOfEachBackend) {
  EXPECT_EQ((*CreateBackend({.name = "reference"}))->numerics_id(), "reference/f32");
  EXPECT_EQ((*CreateBackend({.name = "reference", .dtype = DType::kF64}))->numerics_id(),
            "reference/f64");
  EXPECT_EQ((*CreateBackend({.name = "cpu", .cpu_isa = "scalar"}))->numerics_id(),
            "cpu/f32");
  EXPECT_EQ((*CreateBackend({.name = "cpu", .cpu_isa = "scalar"}))->isa(), "scalar");
}

TEST(CreateBackend, RefusesWhatDoesNotExist) {
  for (const BackendOptions& options :
       {BackendOptions{.name = "abacus"}, BackendOptions{.cpu_isa = "avx1024"},
        BackendOptions{.dtype = DType::kF64}, BackendOptions{.num_threads = 0},
        BackendOptions{.work_per_thread = 0},
        BackendOptions{.name = "reference", .dtype = DType::kBF16}}) {
    EXPECT_EQ(CreateBackend(options).status().code(), absl::StatusCode::kInvalidArgument);
  }
}

TEST(CreateBackend, SaysWhichWeightFormatsABackendRuns) {
  for (const std::string name : {"reference", "cpu"}) {
    const auto backend = CreateBackend({.name = name});
    ASSERT_TRUE(backend.ok());
    EXPECT_TRUE((*backend)->Supports(DType::kFp4, DType::kF8E8M0).ok());
    EXPECT_TRUE((*backend)->Supports(DType::kF8E4M3, DType::kF32).ok());
    EXPECT_EQ((*backend)->Supports(DType::kFp4, DType::kF32).code(),
              absl::StatusCode::kUnimplemented);
    EXPECT_EQ((*backend)->Supports(DType::kI8, DType::kF32).code(),
              absl::StatusCode::kUnimplemented);
  }
}

TEST(CreateBackend, MemoryIsZeroedAlignedAndCopiedThroughStrides) {
  const auto backend = CreateBackend({.name = "cpu"});
  ASSERT_TRUE(backend.ok());
  auto stream = (*backend)->CreateStream();
  ASSERT_TRUE(stream.ok());
  const auto buffer = (*backend)->Allocate(3 * 5 * sizeof(float));
  ASSERT_TRUE(buffer.ok());
  EXPECT_EQ(reinterpret_cast<uintptr_t>(buffer->data()) % 64, 0U);
  const TensorView whole(buffer->data(), DType::kF32, {3, 5});
  const float host[6] = {1, 2, 3, 4, 5, 6};
  (*backend)->Upload(**stream, host, whole.Slice(1, 2, 2));
  float all[15];
  (*backend)->Download(**stream, whole, all);
  ASSERT_TRUE((*stream)->Synchronize().ok());
  const float expected[15] = {0, 0, 1, 2, 0, 0, 0, 3, 4, 0, 0, 0, 5, 6, 0};
  for (int i = 0; i < 15; ++i) {
    EXPECT_EQ(all[i], expected[i]) << i;
  }
}

}  // namespace
}  // namespace tessera::kernels
