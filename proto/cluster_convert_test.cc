#include "proto/cluster_convert.h"

#include "gtest/gtest.h"

#include "tests/testing/status_matchers.h"

namespace tessera::proto {
namespace {

using testing::IsOkAndHolds;
using testing::StatusIs;

TEST(ClusterConvert, AMemberComesBackAsItWas) {
  const ClusterMember member = {ClusterRole::kEngram,
                                5,
                                9,
                                "127.0.0.1:7",
                                "1.0",
                                "cpu/f32",
                                "abc",
                                {"t0", "t1"},
                                {{"block-size", "16"}, {"weights", "w"}}};
  EXPECT_THAT(FromWire(ToWire(member)), IsOkAndHolds(member));
}

TEST(ClusterConvert, RefusesUnknownRolesAndWhatIsTooLarge) {
  constexpr absl::StatusCode kInvalid = absl::StatusCode::kInvalidArgument;
  EXPECT_THAT(FromWire({}), StatusIs(kInvalid));
  ClusterMember member;
  member.address = std::string(kMaxMemberText + 1, 'x');
  EXPECT_THAT(FromWire(ToWire(member)), StatusIs(kInvalid));
  member = {};
  member.table_digests = {std::string(kMaxMemberText + 1, 'x')};
  EXPECT_THAT(FromWire(ToWire(member)), StatusIs(kInvalid));
  member.table_digests = std::vector<std::string>(kMaxMemberTables + 1, "t");
  EXPECT_THAT(FromWire(ToWire(member)), StatusIs(kInvalid));
  member = {};
  member.settings = {{"name", std::string(kMaxMemberText + 1, 'x')}};
  EXPECT_THAT(FromWire(ToWire(member)), StatusIs(kInvalid));
  member.settings = {{std::string(kMaxMemberText + 1, 'x'), "value"}};
  EXPECT_THAT(FromWire(ToWire(member)), StatusIs(kInvalid));
  member.settings = std::vector<MemberSetting>(kMaxMemberSettings + 1);
  EXPECT_THAT(FromWire(ToWire(member)), StatusIs(kInvalid));
}

}  // namespace
}  // namespace tessera::proto
