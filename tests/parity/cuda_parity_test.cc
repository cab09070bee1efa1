// Every row of the parity table on the simulated GPU: the reference's bits and no
// finding, with memory that is as the device gives it, so that a read of what nobody
// wrote is one, under several schedules an op. TESSERA_LONG_TESTS=1: the large cases,
// too, and 100 schedules for each op.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "fmt/format.h"
#include "gtest/gtest.h"

#include "kernels/cuda/cuda_backend.h"
#include "tests/parity/op_run.h"

namespace tessera::parity {
namespace {

constexpr uint64_t kSeed = 20260;  // of the inputs

// Tensors of a case beyond which the simulator takes seconds for it.
constexpr size_t kLargeBytes = size_t{96} << 10;

bool IsLong() { return std::getenv("TESSERA_LONG_TESTS") != nullptr; }

struct Expectation {
  size_t memory_bytes = 0;
  std::vector<OutputValues> outputs;
};

Expectation ByReference(const ParityCase& parity_case) {
  auto backend = kernels::CreateBackend({.name = "reference"});
  TESSERA_CHECK(backend.ok());
  OpRun run(**backend, kSeed, RowMode::kTogether);
  parity_case.run(run);
  return {run.memory_bytes(), run.Outputs()};
}

// Rows together under odd seeds, one by one under even ones.
void Compare(const ParityCase& parity_case, const Expectation& expected,
             uint64_t schedule) {
  SCOPED_TRACE(fmt::format("{}, schedule {}", parity_case.name, schedule));
  auto backend = kernels::CreateSimulatedCudaBackend(
      {.seed = schedule, .check_order = true, .zeroes_memory = false});
  ASSERT_TRUE(backend.ok()) << backend.status();
  OpRun run(**backend, kSeed,
            schedule % 2 == 1 ? RowMode::kTogether : RowMode::kOneByOne);
  parity_case.run(run);
  const absl::Status status = run.stream().Synchronize();
  ASSERT_TRUE(status.ok()) << status;
  EXPECT_EQ(FirstDifference(run.Outputs(), expected.outputs, 0), "");
}

// "Linear" of "Linear_3x5".
std::string OpOf(const ParityCase& parity_case) {
  return parity_case.name.substr(0, parity_case.name.find('_'));
}

class CudaParity : public testing::TestWithParam<std::string> {};

// The op's cases take turns, each at least once; the large ones just once.
TEST_P(CudaParity, HasTheReferencesBitsUnderEverySchedule) {
  std::vector<std::pair<ParityCase, Expectation>> cases;
  for (const ParityCase& parity_case : AllCases()) {
    if (OpOf(parity_case) != GetParam()) {
      continue;
    }
    Expectation expected = ByReference(parity_case);
    if (expected.memory_bytes <= kLargeBytes) {
      cases.emplace_back(parity_case, std::move(expected));
    } else if (IsLong()) {
      Compare(parity_case, expected, 1);
    }
  }
  ASSERT_FALSE(cases.empty());
  const uint64_t runs = std::max<uint64_t>(IsLong() ? 100 : 3, cases.size());
  for (uint64_t schedule = 1; schedule <= runs; ++schedule) {
    const auto& [parity_case, expected] = cases[schedule % cases.size()];
    Compare(parity_case, expected, schedule);
  }
}

std::vector<std::string> AllOps() {
  std::map<std::string, bool> ops;
  for (const ParityCase& parity_case : AllCases()) {
    ops[OpOf(parity_case)] = true;
  }
  std::vector<std::string> names;
  for (const auto& [name, seen] : ops) {
    names.push_back(name);
  }
  return names;
}

INSTANTIATE_TEST_SUITE_P(Op, CudaParity, testing::ValuesIn(AllOps()),
                         [](const auto& op) { return op.param; });

}  // namespace
}  // namespace tessera::parity
