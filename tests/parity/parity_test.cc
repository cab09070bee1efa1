// Every row of the parity table on every instruction set of the cpu backend against
// `reference`, and the properties that hold bit by bit: row independence, thread counts,
// instruction sets.
#include <string>
#include <vector>

#include "gtest/gtest.h"

#include "tests/parity/op_run.h"

namespace tessera::parity {
namespace {

constexpr uint64_t kSeed = 20260;

// A result may differ from the reference by this share of the largest value of its
// output. One place for all ops: float32 sums of up to 20,000 products, in the same
// order; exp and division differ in the last bit. Integers must be equal.
double Tolerance(DType dtype) { return dtype == DType::kF64 ? 1e-12 : 4e-6; }

std::vector<OutputValues> RunOn(const ParityCase& parity_case,
                                const kernels::BackendOptions& options,
                                RowMode mode = RowMode::kTogether) {
  auto backend = kernels::CreateBackend(options);
  TESSERA_CHECK(backend.ok());
  OpRun run(**backend, kSeed, mode);
  parity_case.run(run);
  TESSERA_CHECK(run.stream().Synchronize().ok());
  return run.Outputs();
}

// The machine's levels; the test of a level that it lacks skips.
bool HasIsa(const std::string& isa) {
  return kernels::CreateBackend({.name = "cpu", .cpu_isa = isa}).ok();
}

class CpuParity : public testing::TestWithParam<std::string> {
 protected:
  void SetUp() override {
    if (!HasIsa(GetParam())) {
      GTEST_SKIP() << "this machine has no " << GetParam();
    }
  }
};

TEST_P(CpuParity, EveryOpAgreesWithTheReference) {
  for (const ParityCase& parity_case : AllCases()) {
    const auto expected = RunOn(parity_case, {.name = "reference"});
    const auto seen = RunOn(parity_case, {.name = "cpu", .cpu_isa = GetParam()});
    EXPECT_EQ(FirstDifference(seen, expected, Tolerance(DType::kF32)), "")
        << parity_case.name;
  }
}

TEST_P(CpuParity, RowsTogetherHaveTheBitsOfRowsAlone) {
  const kernels::BackendOptions options = {.name = "cpu", .cpu_isa = GetParam()};
  for (const ParityCase& parity_case : AllCases()) {
    const auto expected = RunOn(parity_case, options, RowMode::kOneByOne);
    EXPECT_EQ(FirstDifference(RunOn(parity_case, options), expected, 0), "")
        << parity_case.name;
  }
}

TEST_P(CpuParity, BitsDoNotDependOnTheThreadCount) {
  for (const ParityCase& parity_case : AllCases()) {
    const auto expected = RunOn(parity_case, {.name = "cpu", .cpu_isa = GetParam()});
    for (const int threads : {2, 5}) {
      const auto seen = RunOn(parity_case, {.name = "cpu",
                                            .cpu_isa = GetParam(),
                                            .num_threads = threads,
                                            .work_per_thread = 1});
      EXPECT_EQ(FirstDifference(seen, expected, 0), "")
          << parity_case.name << " with " << threads << " threads";
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Isa, CpuParity,
                         testing::Values("scalar", "avx2", "avx512", "avx512vnni", "amx"),
                         [](const auto& level) { return level.param; });

// Levels that are compared with the scalar one.
class CpuSimd : public CpuParity {};

TEST_P(CpuSimd, BitsAreThoseOfTheScalarLevel) {
  for (const ParityCase& parity_case : AllCases()) {
    const auto expected = RunOn(parity_case, {.name = "cpu", .cpu_isa = "scalar"});
    const auto seen = RunOn(parity_case, {.name = "cpu", .cpu_isa = GetParam()});
    EXPECT_EQ(FirstDifference(seen, expected, 0), "") << parity_case.name;
  }
}

INSTANTIATE_TEST_SUITE_P(Isa, CpuSimd,
                         testing::Values("avx2", "avx512", "avx512vnni", "amx"),
                         [](const auto& level) { return level.param; });

TEST(Reference, Float32AgreesWithFloat64) {
  for (const ParityCase& parity_case : AllCases()) {
    const auto expected = RunOn(parity_case, {.name = "reference", .dtype = DType::kF64});
    const auto seen = RunOn(parity_case, {.name = "reference"});
    EXPECT_EQ(FirstDifference(seen, expected, Tolerance(DType::kF32)), "")
        << parity_case.name;
  }
}

class ReferenceParity : public testing::TestWithParam<DType> {};

TEST_P(ReferenceParity, RowsTogetherHaveTheBitsOfRowsAlone) {
  const kernels::BackendOptions options = {.name = "reference", .dtype = GetParam()};
  for (const ParityCase& parity_case : AllCases()) {
    const auto expected = RunOn(parity_case, options, RowMode::kOneByOne);
    EXPECT_EQ(FirstDifference(RunOn(parity_case, options), expected, 0), "")
        << parity_case.name;
  }
}

INSTANTIATE_TEST_SUITE_P(DType, ReferenceParity,
                         testing::Values(DType::kF32, DType::kF64),
                         [](const auto& dtype) {
                           return dtype.param == DType::kF32 ? "f32" : "f64";
                         });

}  // namespace
}  // namespace tessera::parity
