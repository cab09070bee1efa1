// Every row of the parity table on a GPU against `reference`: the same bits where an op
// is sums, products and conversions, a tolerance for exp and its like, which the host's
// library and the GPU round differently. And what must hold bit by bit on one device:
// rows together have the bits of rows alone, and a run those of the next.
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "gtest/gtest.h"

#include "tests/parity/op_run.h"

namespace tessera::parity {
namespace {

constexpr uint64_t kSeed = 20260;
// As between the cpu backend and the reference (parity_test.cc).
constexpr double kTolerance = 4e-6;

class GpuParity : public testing::Test {
 protected:
  void SetUp() override {
    auto backend = kernels::CreateBackend({.name = "cuda"});
    if (absl::IsNotFound(backend.status())) {
      GTEST_SKIP() << "skipped: " << backend.status().message();
    }
    ASSERT_TRUE(backend.ok()) << backend.status();
    gpu_ = std::move(*backend);
    reference_ = *kernels::CreateBackend({.name = "reference"});
  }
  static std::vector<OutputValues> RunOn(KernelBackend& backend,
                                         const ParityCase& parity_case,
                                         RowMode mode = RowMode::kTogether) {
    OpRun run(backend, kSeed, mode);
    parity_case.run(run);
    const absl::Status status = run.stream().Synchronize();
    EXPECT_TRUE(status.ok()) << parity_case.name << ": " << status;
    return run.Outputs();
  }

  std::unique_ptr<KernelBackend> gpu_;
  std::unique_ptr<KernelBackend> reference_;
};

TEST_F(GpuParity, EveryOpAgreesWithTheReference) {
  for (const ParityCase& parity_case : AllCases()) {
    EXPECT_EQ(FirstDifference(RunOn(*gpu_, parity_case), RunOn(*reference_, parity_case),
                              kTolerance),
              "")
        << parity_case.name;
  }
}

TEST_F(GpuParity, ProductsHaveTheReferencesBits) {
  for (const ParityCase& parity_case : LinearCases()) {
    EXPECT_EQ(
        FirstDifference(RunOn(*gpu_, parity_case), RunOn(*reference_, parity_case), 0),
        "")
        << parity_case.name;
  }
}

TEST_F(GpuParity, RowsTogetherHaveTheBitsOfRowsAloneTwice) {
  for (const ParityCase& parity_case : AllCases()) {
    const auto expected = RunOn(*gpu_, parity_case, RowMode::kOneByOne);
    for (int run = 0; run < 2; ++run) {
      EXPECT_EQ(FirstDifference(RunOn(*gpu_, parity_case), expected, 0), "")
          << parity_case.name;
    }
  }
}

}  // namespace
}  // namespace tessera::parity
