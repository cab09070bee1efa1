#include "engram_store/table/sha256.h"

#include "gtest/gtest.h"

namespace tessera::engram_store {
namespace {

std::span<const std::byte> Bytes(std::string_view text) {
  return std::as_bytes(std::span(text));
}

// FIPS 180-2, appendix B.1.
constexpr std::string_view kAbc =
    "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

TEST(Sha256, GivesThePublishedDigest) {
  EXPECT_EQ(ToHex(Sha256::Of(Bytes("abc"))), kAbc);
}

TEST(Sha256, PiecesGiveTheDigestOfTheWhole) {
  Sha256 hash;
  hash.Update(Bytes("a"));
  hash.Update(Bytes(""));
  hash.Update(Bytes("bc"));
  EXPECT_EQ(ToHex(hash.Finish()), kAbc);
}

TEST(Sha256, HexRoundTripsAndRefusesOtherText) {
  Sha256Digest digest;
  ASSERT_TRUE(FromHex(kAbc, &digest));
  EXPECT_EQ(ToHex(digest), kAbc);
  EXPECT_FALSE(FromHex("ba78", &digest));
  EXPECT_FALSE(FromHex(std::string(64, 'g'), &digest));
}

}  // namespace
}  // namespace tessera::engram_store
