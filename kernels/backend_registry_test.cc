#include <algorithm>
#include <iterator>
#include <numeric>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "gtest/gtest.h"

#include "kernels/backend_traits.h"
#include "kernels/device_limits.h"
#include "kernels/kernel_backend.h"
#include "kernels/local_devices.h"

namespace tessera::kernels {
namespace {

// The build's `cuda` is a GPU, and this machine has none.
bool LacksDevice(std::string_view name) {
  return name == "cuda" && NumericsFamily("cuda") == "cuda" &&
         CreateBackend({.name = name}).status().code() == absl::StatusCode::kNotFound;
}

TEST(CreateBackend, NamesTheArithmeticOfEachBackend) {
  EXPECT_EQ((*CreateBackend({.name = "reference"}))->numerics_id(), "reference/f32");
  EXPECT_EQ((*CreateBackend({.name = "reference", .dtype = DType::kF64}))->numerics_id(),
            "reference/f64");
  EXPECT_EQ((*CreateBackend({.name = "cpu", .cpu_isa = "scalar"}))->numerics_id(),
            "cpu/f32");
  EXPECT_EQ((*CreateBackend({.name = "cpu", .cpu_isa = "scalar"}))->isa(), "scalar");
  for (const std::string_view name : {"reference", "cpu", "cuda"}) {
    if (LacksDevice(name)) {
      continue;
    }
    EXPECT_EQ((*CreateBackend({.name = name}))->numerics_id(),
              std::string(NumericsFamily(name)) + "/f32");
    if (name != "cpu") {
      EXPECT_EQ((*CreateBackend({.name = name, .numerics = "fp8-g128"}))->numerics_id(),
                std::string(NumericsFamily(name)) + "/fp8-g128");
    }
  }
}

TEST(CreateBackend, CudaIsAGpuOrSaysThatItIsSimulated) {
  const auto backend = CreateBackend({.name = "cuda"});
  if (NumericsFamily("cuda") == "cuda_sim") {
    EXPECT_EQ((*backend)->numerics_id(), "cuda_sim/f32");
    EXPECT_EQ((*backend)->isa(), "simulated GPU");
  } else if (LacksDevice("cuda")) {
    EXPECT_EQ(backend.status().message().substr(0, 10), "no device:");
  } else {
    EXPECT_EQ((*backend)->numerics_id(), "cuda/f32");
    EXPECT_NE((*backend)->isa().find("sm_90"), std::string_view::npos);
  }
}

TEST(MeasureDeviceLimits, AreThoseOfAGpuAlone) {
  EXPECT_EQ(MeasureDeviceLimits("cpu", Clock::Real()).status().code(),
            absl::StatusCode::kUnimplemented);
  const auto limits = MeasureDeviceLimits("cuda", Clock::Real());
  if (NumericsFamily("cuda") == "cuda_sim") {
    EXPECT_EQ(limits.status().code(), absl::StatusCode::kUnimplemented);
  } else if (LacksDevice("cuda")) {
    EXPECT_EQ(limits.status().code(), absl::StatusCode::kNotFound);
  } else {
    EXPECT_GT(limits->read_bytes_per_s, 0);
    EXPECT_GT(limits->multiply_adds_per_s, 0);
  }
}

TEST(CreateBackend, RefusesWhatDoesNotExist) {
  for (const BackendOptions& options :
       {BackendOptions{.name = "abacus"}, BackendOptions{.cpu_isa = "avx1024"},
        BackendOptions{.dtype = DType::kF64}, BackendOptions{.num_threads = 0},
        BackendOptions{.work_per_thread = 0},
        BackendOptions{.name = "reference", .dtype = DType::kBF16},
        BackendOptions{.name = "cuda", .dtype = DType::kF64},
        BackendOptions{.name = "cuda", .numerics = "int8-g32"},
        BackendOptions{.name = "cpu", .numerics = "fp8-g128"},
        BackendOptions{.name = "reference", .numerics = "int8-g32"},
        BackendOptions{
            .name = "reference", .dtype = DType::kF64, .numerics = "fp8-g128"}}) {
    EXPECT_EQ(CreateBackend(options).status().code(), absl::StatusCode::kInvalidArgument);
  }
}

// One rank's op on another's memory, which a simulated GPU refuses.
TEST(CreateLocalDevices, GiveEachRankADeviceThatItsGroupsAreOn) {
  const auto devices = CreateLocalDevices({.name = "cuda"}, 2);
  ASSERT_TRUE(devices.ok()) << devices.status();
  const auto rounding = CreateLocalDevices({.name = "cuda", .numerics = "fp8-g128"}, 1);
  ASSERT_TRUE(rounding.ok()) << rounding.status();
  EXPECT_EQ((*(*rounding)->CreateBackend(0))->numerics_id(),
            std::string(NumericsFamily("cuda")) + "/fp8-g128");
  if (NumericsFamily("cuda") == "cuda") {
    EXPECT_FALSE((*devices)->has_collectives());
    return;
  }
  ASSERT_TRUE((*devices)->has_collectives());
  const auto first = (*devices)->CreateBackend(0);
  const auto second = (*devices)->CreateBackend(1);
  EXPECT_EQ((*second)->numerics_id(), "cuda_sim/f32");
  EXPECT_FALSE((*devices)->reaches_processes());
  EXPECT_NE((*devices)->identity(0), (*devices)->identity(1));
  const auto id = (*devices)->NewGroupId();
  ASSERT_TRUE(id.ok()) << id.status();
  const auto group = (*devices)->JoinGroup(*id, 2, 1, 0);
  ASSERT_TRUE(group.ok()) << group.status();
  EXPECT_EQ((*group)->rank(), 1);
  EXPECT_EQ((*group)->size(), 2);
  // The rank once more, its device as another rank's, an id of nobody.
  EXPECT_EQ((*devices)->JoinGroup(*id, 2, 1, 1).status().code(),
            absl::StatusCode::kInvalidArgument);
  EXPECT_EQ((*devices)->JoinGroup(*id, 2, 0, 0).status().code(),
            absl::StatusCode::kInvalidArgument);
  EXPECT_EQ((*devices)->JoinGroup({}, 2, 0, 1).status().code(),
            absl::StatusCode::kInvalidArgument);
  EXPECT_EQ((*devices)->CreateBackend(2).status().code(),
            absl::StatusCode::kInvalidArgument);

  const auto foreign = (*first)->Allocate(4 * sizeof(float));
  auto stream = (*second)->CreateStream();
  (*second)->Scale(**stream, TensorView(foreign->data(), DType::kF32, {1, 4}), 2.0);
  EXPECT_EQ((*stream)->Synchronize().code(), absl::StatusCode::kInternal);
}

TEST(CreateLocalDevices, HaveNoCollectivesInTheMemoryOfTheHost) {
  for (const std::string_view name : {"reference", "cpu"}) {
    const auto devices = CreateLocalDevices({.name = name}, 2);
    ASSERT_TRUE(devices.ok()) << devices.status();
    EXPECT_FALSE((*devices)->has_collectives());
    EXPECT_FALSE((*devices)->reaches_processes());
    EXPECT_EQ((*devices)->NewGroupId().status().code(), absl::StatusCode::kUnimplemented);
    EXPECT_EQ((*devices)->JoinGroup({}, 2, 0, 0).status().code(),
              absl::StatusCode::kUnimplemented);
    EXPECT_EQ((*(*devices)->CreateBackend(1))->name(), name);
  }
}

TEST(CreateLocalDevices, RefuseWhatTheirBackendsWould) {
  for (const int num_ranks : {0, kMaxLocalRanks + 1}) {
    EXPECT_EQ(CreateLocalDevices({.name = "cuda"}, num_ranks).status().code(),
              absl::StatusCode::kInvalidArgument);
  }
  EXPECT_EQ(CreateLocalDevices({.name = "cuda", .dtype = DType::kF64}, 2).status().code(),
            absl::StatusCode::kInvalidArgument);
}

TEST(CreateBackend, SaysWhichWeightFormatsABackendRuns) {
  for (const std::string name : {"reference", "cpu", "cuda"}) {
    if (LacksDevice(name)) {
      continue;
    }
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
  for (const std::string name : {"reference", "cpu", "cuda"}) {
    if (LacksDevice(name)) {
      continue;
    }
    const auto backend = CreateBackend({.name = name});
    ASSERT_TRUE(backend.ok());
    auto stream = (*backend)->CreateStream();
    ASSERT_TRUE(stream.ok());
    const auto buffer = (*backend)->Allocate(2 * 2 * 3 * 5 * sizeof(float));
    ASSERT_TRUE(buffer.ok());
    EXPECT_EQ(reinterpret_cast<uintptr_t>(buffer->data()) % 64, 0U);
    const TensorView whole(buffer->data(), DType::kF32, {2, 2, 3, 5});
    float host[24];
    std::iota(std::begin(host), std::end(host), 1.0F);
    (*backend)->Upload(**stream, host, whole.Slice(3, 2, 2));
    float all[60];
    (*backend)->Download(**stream, whole, all);
    float part[24];
    (*backend)->Download(**stream, whole.Slice(3, 2, 2), part);
    ASSERT_TRUE((*stream)->Synchronize().ok());
    EXPECT_TRUE(std::equal(std::begin(host), std::end(host), std::begin(part))) << name;
    for (int i = 0; i < 60; ++i) {
      const bool is_set = i % 5 == 2 || i % 5 == 3;
      EXPECT_EQ(all[i], is_set ? host[i / 5 * 2 + i % 5 - 2] : 0.0F) << name << " " << i;
    }
  }
}

}  // namespace
}  // namespace tessera::kernels
