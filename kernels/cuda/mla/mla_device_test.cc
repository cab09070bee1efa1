// MLA decode on a device: over the simulator (sim_mla_test) and, where there is one, on a
// GPU (gpu_mla_test), which is the comparison that a backend waits for. Against float64,
// within what the tensor cores may lose; and the same bits alone as in a batch, which no
// rounding excuses.
#include <cstdint>
#include <cstring>
#include <vector>

#include "gtest/gtest.h"

#include "kernels/cuda/mla/mla_decode.h"
#include "tests/testing/gpu_device_test.h"
#include "tests/testing/mla_problem.h"

namespace tessera::kernels::cuda {
namespace {

// Of the 17 values that an instruction adds, each may lose 2^-23 of the largest: the
// tensor cores add BF16 in no fewer bits than float32 has, and cut instead of rounding.
constexpr double kLoss = 2 * 17;
constexpr int64_t kHeads = 16;

class MlaDevice : public DeviceTest {
 protected:
  std::vector<float> Run(const MlaOptions& options, const std::vector<MlaToken>& tokens) {
    auto result = MlaProblem(options, tokens).Run(*machine_, *stream_);
    EXPECT_TRUE(result.ok()) << result.status();
    return result.ok() ? *result : std::vector<float>();
  }
};

const std::vector<MlaToken> kTokens = {{.name = 1, .sequence = 0, .position = 0},
                                       {.name = 2, .sequence = 1, .position = 64},
                                       {.name = 3, .sequence = 0, .position = 1024},
                                       {.name = 4, .sequence = 1, .position = -1}};

TEST_F(MlaDevice, IsWithinItsAccumulatorsOfTheExactSum) {
  const MlaProblem problem({.heads = kHeads}, kTokens);
  const std::vector<float> seen = Run({.heads = kHeads}, kTokens);
  ASSERT_EQ(seen.size(), kTokens.size() * kHeads * kMlaLatent);
  for (size_t token = 0; token < kTokens.size(); ++token) {
    for (int64_t head = 0; head < kHeads; head += 5) {
      const float* const row =
          seen.data() + (static_cast<std::ptrdiff_t>(token) * kHeads + head) * kMlaLatent;
      if (kTokens[token].position < 0) {
        for (int64_t i = 0; i < kMlaLatent; ++i) {
          ASSERT_EQ(row[i], 0.0F);
        }
        continue;
      }
      const MlaExpected expected = problem.Expect(token, head, kLoss);
      for (size_t i = 0; i < kMlaLatent; ++i) {
        ASSERT_NEAR(row[i], expected.values[i], expected.BoundOfValues(i, kLoss))
            << "token " << token << ", head " << head << ", column " << i;
      }
    }
  }
}

TEST_F(MlaDevice, ARowHasTheSameBitsAloneAndWithOtherPages) {
  const std::vector<float> all = Run({.heads = kHeads}, kTokens);
  for (const size_t token : {size_t{1}, size_t{2}}) {
    const std::vector<float> one =
        Run({.heads = kHeads, .block_size = 8, .page_seed = 3}, {kTokens[token]});
    ASSERT_EQ(one.size(), size_t{kHeads * kMlaLatent});
    EXPECT_EQ(std::memcmp(one.data(), all.data() + token * one.size(),
                          one.size() * sizeof(float)),
              0)
        << token;
  }
}

// Rows of FP8 codes, of which one token selects some in two splits.
TEST_F(MlaDevice, PackedAndSelectedRowsAreWithinTheSameBound) {
  std::vector<MlaToken> tokens = {
      {.name = 1, .sequence = 0, .position = 2100, .selected = {}},
      {.name = 2, .sequence = 1, .position = 64, .selected = {3, 4, 60}}};
  for (int32_t entry = 1; entry <= 2100; entry += 2) {
    tokens[0].selected.push_back(entry);
  }
  const MlaOptions options = {.heads = kHeads, .packed = true, .selects = true};
  const MlaProblem problem(options, tokens);
  const std::vector<float> seen = Run(options, tokens);
  ASSERT_EQ(seen.size(), tokens.size() * kHeads * kMlaLatent);
  for (size_t token = 0; token < tokens.size(); ++token) {
    const int64_t head = 11;
    const float* const row =
        seen.data() + (static_cast<std::ptrdiff_t>(token) * kHeads + head) * kMlaLatent;
    const MlaExpected expected = problem.Expect(token, head, kLoss);
    for (size_t i = 0; i < kMlaLatent; ++i) {
      ASSERT_NEAR(row[i], expected.values[i], expected.BoundOfValues(i, kLoss))
          << "token " << token << ", column " << i;
    }
  }
}

}  // namespace
}  // namespace tessera::kernels::cuda
