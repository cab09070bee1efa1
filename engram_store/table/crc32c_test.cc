#include "engram_store/table/crc32c.h"

#include <string_view>
#include <vector>

#include "gtest/gtest.h"

namespace tessera::engram_store {
namespace {

TEST(Crc32c, GivesThePublishedValues) {
  const std::vector<std::byte> zeros(32);  // RFC 3720, B.4.
  EXPECT_EQ(Crc32c(zeros), 0x8A9136AAu);
  constexpr std::string_view kDigits = "123456789";
  EXPECT_EQ(Crc32c(std::as_bytes(std::span(kDigits))), 0xE3069283u);
}

TEST(Crc32c, InstructionAndTableAgreeForEveryLength) {
  std::vector<std::byte> bytes;
  for (int i = 0; i < 100; ++i) {
    EXPECT_EQ(Crc32c(bytes), Crc32cPortable(bytes)) << i;
    bytes.push_back(static_cast<std::byte>(i * 37));
  }
}

}  // namespace
}  // namespace tessera::engram_store
