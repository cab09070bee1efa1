#include "coordinator/scheduler/prefix_hash.h"

#include <cstring>
#include <numeric>
#include <vector>

#include "gtest/gtest.h"

namespace tessera::coordinator {
namespace {

// Key bytes 00 01 … 0f, as in the published test vectors of SipHash.
constexpr std::array<uint64_t, 2> kKey = {0x0706050403020100ULL, 0x0f0e0d0c0b0a0908ULL};

TEST(PrefixHash, EqualsThePublishedVectorForNoInput) {
  const PrefixKey hash = SipHash128(kKey, {});
  // a3 81 7f 04 ba 25 a8 e6 6d f6 72 14 c7 55 02 93
  EXPECT_EQ(hash.low, 0xe6a825ba047f81a3ULL);
  EXPECT_EQ(hash.high, 0x930255c71472f66dULL);
}

TEST(PrefixHash, ExtendHashesTheParentAndTheTokensEndToEnd) {
  const PrefixHash hash(kKey);
  const PrefixKey parent = hash.Root("model", "tenant");
  for (size_t count = 1; count <= 17; ++count) {
    std::vector<int32_t> tokens(count);
    std::iota(tokens.begin(), tokens.end(), -3);
    std::vector<std::byte> bytes(16 + 4 * count);
    std::memcpy(bytes.data(), &parent.low, 8);
    std::memcpy(bytes.data() + 8, &parent.high, 8);
    std::memcpy(bytes.data() + 16, tokens.data(), 4 * count);
    EXPECT_EQ(hash.Extend(parent, tokens), SipHash128(kKey, bytes)) << count;
  }
}

TEST(PrefixHash, RootsDifferByModelTenantAndTheirBoundary) {
  const PrefixHash hash(kKey);
  EXPECT_NE(hash.Root("m", "a"), hash.Root("m", "b"));
  EXPECT_NE(hash.Root("m", "a"), hash.Root("n", "a"));
  EXPECT_NE(hash.Root("ma", "b"), hash.Root("m", "ab"));
  EXPECT_NE(hash.Root("m", "a", "s"), hash.Root("m", "a"));
  EXPECT_NE(hash.Root("m", "a", "s"), hash.Root("m", "as"));
  EXPECT_NE(hash.Root("m", "a"), PrefixHash({1, 2}).Root("m", "a"));
}

TEST(PrefixHash, ExtendAllIsIncrementalAndCoversFullBlocksOnly) {
  const PrefixHash hash(kKey);
  const PrefixKey root = hash.Root("m", "a");
  std::vector<int32_t> tokens(11);
  std::iota(tokens.begin(), tokens.end(), 0);
  std::vector<PrefixKey> at_once;
  hash.ExtendAll(root, tokens, 4, &at_once);
  EXPECT_EQ(at_once.size(), 2u);
  std::vector<PrefixKey> stepwise;
  for (size_t n = 0; n <= tokens.size(); ++n) {
    hash.ExtendAll(root, std::span(tokens).first(n), 4, &stepwise);
  }
  EXPECT_EQ(stepwise, at_once);
}

TEST(PrefixHash, AnEarlierTokenChangesEveryLaterKey) {
  const PrefixHash hash(kKey);
  std::vector<int32_t> tokens(12, 5);
  std::vector<PrefixKey> before;
  hash.ExtendAll(hash.Root("", ""), tokens, 4, &before);
  tokens[0] = 6;
  std::vector<PrefixKey> after;
  hash.ExtendAll(hash.Root("", ""), tokens, 4, &after);
  for (size_t i = 0; i < before.size(); ++i) {
    EXPECT_NE(before[i], after[i]);
  }
}

}  // namespace
}  // namespace tessera::coordinator
