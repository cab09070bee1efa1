#include "worker/comm/exchange_message.h"

#include <cstring>
#include <vector>

#include "gtest/gtest.h"

#include "tests/testing/status_matchers.h"

namespace tessera::worker {
namespace {

using testing::IsOk;
using testing::StatusIs;

constexpr int kRank = 1;
constexpr uint32_t kExchange = 7;

// A valid message of two rows to experts 1 and 3 of rank 1, as 64-bit words for
// alignment.
class ExchangeMessage : public ::testing::Test {
 protected:
  ExchangeMessage() {
    shape_.placement_digest = PlacementDigest(owner_, 3, 2, 4, 0, 12);
    shape_.max_rows = 2;
    shape_.max_rounds = 2;
    shape_.experts_per_token = 2;
    shape_.row_bytes = 12;
    shape_.expert_owner = owner_;
    words_.resize(static_cast<size_t>(MessageBytes(shape_, 2, 3)) / 8, ~uint64_t{0});
    MessageDraft draft = DraftMessage(shape_, kExchange, 2, 2, 3, bytes());
    draft.items_of_row[0] = 2;
    draft.items_of_row[1] = 1;
    draft.expert_of_item[0] = 3;
    draft.expert_of_item[1] = 1;
    draft.expert_of_item[2] = 3;
    std::memset(draft.rows, 0x11, 24);
  }

  std::byte* bytes() { return reinterpret_cast<std::byte*>(words_.data()); }
  std::span<const std::byte> message() {
    return std::as_bytes(std::span<const uint64_t>(words_));
  }
  absl::StatusOr<DispatchMessage> Parse() {
    return ParseMessage(shape_, kExchange, kRank, message());
  }
  void Overwrite(size_t offset, int32_t value) {
    std::memcpy(bytes() + offset, &value, sizeof(value));
  }

  std::vector<int> owner_ = {0, 1, 0, 1};
  ExchangeShape shape_;
  std::vector<uint64_t> words_;
};

TEST_F(ExchangeMessage, ComesBackAsItWasDrafted) {
  absl::StatusOr<DispatchMessage> parsed = Parse();
  ASSERT_THAT(parsed, IsOk());
  EXPECT_EQ(parsed->num_rounds, 2);
  ASSERT_EQ(parsed->items_of_row.size(), 2u);
  EXPECT_EQ(parsed->items_of_row[0], 2);
  ASSERT_EQ(parsed->expert_of_item.size(), 3u);
  EXPECT_EQ(parsed->expert_of_item[1], 1);
  EXPECT_EQ(parsed->rows[23], std::byte{0x11});
}

TEST_F(ExchangeMessage, CarriesAWeightPerItem) {
  for (const int64_t weight_bytes : {4, 8}) {
    shape_.weight_bytes = weight_bytes;
    words_.assign(static_cast<size_t>(MessageBytes(shape_, 2, 3)) / 8, ~uint64_t{0});
    MessageDraft draft = DraftMessage(shape_, kExchange, 1, 2, 3, bytes());
    draft.items_of_row[0] = 2;
    draft.items_of_row[1] = 1;
    for (int32_t& expert : draft.expert_of_item) {
      expert = 1;
    }
    const auto size = static_cast<size_t>(3 * weight_bytes);
    std::memset(draft.weight_of_item, 0x22, size);
    std::memset(draft.rows, 0x11, 24);
    absl::StatusOr<DispatchMessage> parsed = Parse();
    ASSERT_THAT(parsed, IsOk());
    EXPECT_EQ(parsed->expert_of_item[2], 1);
    EXPECT_EQ(parsed->weight_of_item[0], std::byte{0x22});
    EXPECT_EQ(parsed->weight_of_item[size - 1], std::byte{0x22});
    // Three floats are padded; three doubles end where the rows begin.
    if (weight_bytes == 4) {
      EXPECT_EQ(parsed->weight_of_item[size], std::byte{0});
    }
    EXPECT_EQ(parsed->rows[0], std::byte{0x11});
    EXPECT_EQ(parsed->rows[23], std::byte{0x11});
    ASSERT_THAT(ParseMessage(shape_, kExchange, kRank, message().first(size)),
                StatusIs(absl::StatusCode::kDataLoss));
  }
}

TEST_F(ExchangeMessage, RefusesEveryTruncation) {
  for (size_t n = 0; n < message().size(); ++n) {
    EXPECT_THAT(ParseMessage(shape_, kExchange, kRank, message().first(n)),
                StatusIs(absl::StatusCode::kDataLoss))
        << n;
  }
}

TEST_F(ExchangeMessage, RefusesAnotherPlacementOrExchange) {
  EXPECT_THAT(ParseMessage(shape_, kExchange + 1, kRank, message()),
              StatusIs(absl::StatusCode::kFailedPrecondition));
  shape_.placement_digest ^= 1;
  EXPECT_THAT(Parse(), StatusIs(absl::StatusCode::kFailedPrecondition));
}

TEST_F(ExchangeMessage, RefusesHostileCounts) {
  constexpr size_t kRowsAt = 12;
  constexpr size_t kItemsAt = 16;
  constexpr size_t kRoundsAt = 20;
  for (const int32_t value : {-1, 0, 3, 1 << 30, INT32_MIN, INT32_MAX}) {
    Overwrite(kRowsAt, value);
    EXPECT_THAT(Parse(), StatusIs(absl::StatusCode::kDataLoss)) << value;
  }
  Overwrite(kRowsAt, 2);
  for (const int32_t value : {-1, 0, 3, INT32_MIN, INT32_MAX}) {
    Overwrite(kRoundsAt, value);
    EXPECT_THAT(Parse(), StatusIs(absl::StatusCode::kDataLoss)) << value;
  }
  Overwrite(kRoundsAt, 1);
  EXPECT_THAT(Parse(), IsOk());
  for (const int32_t value : {-1, 0, 1, 5, INT32_MIN, INT32_MAX}) {
    Overwrite(kItemsAt, value);
    EXPECT_THAT(Parse(), StatusIs(absl::StatusCode::kDataLoss)) << value;
  }
}

TEST_F(ExchangeMessage, RefusesItemsThatDoNotAddUp) {
  for (const int32_t value : {-1, 0, 1, 3, INT32_MAX}) {
    Overwrite(24, value);
    EXPECT_THAT(Parse(), StatusIs(absl::StatusCode::kDataLoss)) << value;
  }
}

TEST_F(ExchangeMessage, RefusesExpertsOfOtherRanks) {
  for (const int32_t value : {-1, 0, 2, 4, INT32_MIN, INT32_MAX}) {
    Overwrite(32, value);
    EXPECT_THAT(Parse(), StatusIs(absl::StatusCode::kDataLoss)) << value;
  }
}

TEST(PlacementDigest, DependsOnEveryOwnerAndFormat) {
  const std::vector<int> a = {0, 1, 0, 1};
  std::vector<int> b = a;
  std::swap(b[2], b[3]);
  EXPECT_NE(PlacementDigest(a, 3, 2, 4, 0, 12), PlacementDigest(b, 3, 2, 4, 0, 12));
  EXPECT_NE(PlacementDigest(a, 3, 2, 4, 0, 12), PlacementDigest(a, 3, 2, 8, 0, 12));
  EXPECT_NE(PlacementDigest(a, 3, 2, 4, 0, 12), PlacementDigest(a, 3, 2, 4, 4, 12));
  EXPECT_NE(PlacementDigest(a, 3, 2, 4, 0, 12), PlacementDigest(a, 3, 2, 4, 0, 7));
}

}  // namespace
}  // namespace tessera::worker
