#include "common/option_value.h"

#include <string>

#include "absl/status/status.h"
#include "gtest/gtest.h"

#include "tests/testing/status_matchers.h"

namespace tessera {
namespace {

using ::testing::HasSubstr;
using testing::IsOk;
using testing::StatusIs;

constexpr auto kInvalid = absl::StatusCode::kInvalidArgument;

template <typename T>
T Parsed(const std::string& text) {
  T value{};
  EXPECT_THAT(ParseOption(text, &value), IsOk()) << text;
  return value;
}

template <typename T>
absl::Status Refused(const std::string& text) {
  T value{};
  absl::Status status = ParseOption(text, &value);
  EXPECT_EQ(value, T{}) << "a refused value must not be stored: " << text;
  return status;
}

TEST(OptionValue, IntegersTakeTheirWholeRange) {
  EXPECT_EQ(Parsed<int>("2147483647"), 2147483647);
  EXPECT_EQ(Parsed<int>("-2147483648"), -2147483647 - 1);
  EXPECT_EQ(Parsed<int64_t>("-9223372036854775808"), INT64_MIN);
  EXPECT_EQ(Parsed<uint64_t>("18446744073709551615"), UINT64_MAX);
}

TEST(OptionValue, IntegersOutOfRangeAreRefused) {
  EXPECT_THAT(Refused<int>("2147483648"), StatusIs(kInvalid, HasSubstr("out of range")));
  EXPECT_THAT(Refused<int>("99999999999999999999"), StatusIs(kInvalid));
  EXPECT_THAT(Refused<int64_t>("9223372036854775807K"), StatusIs(kInvalid));
  EXPECT_THAT(Refused<uint64_t>("-1"), StatusIs(kInvalid, HasSubstr("non-negative")));
}

TEST(OptionValue, SuffixesAreDecimalInLowerAndBinaryInUpperCase) {
  EXPECT_EQ(Parsed<int>("2k"), 2000);
  EXPECT_EQ(Parsed<int>("2K"), 2048);
  EXPECT_EQ(Parsed<int64_t>("3g"), 3'000'000'000);
  EXPECT_EQ(Parsed<int64_t>("1T"), int64_t{1} << 40);
  EXPECT_THAT(Refused<int>("3G"), StatusIs(kInvalid, HasSubstr("out of range")));
}

TEST(OptionValue, WhatIsNoIntegerIsRefused) {
  for (const char* text :
       {"", "k", "1.5", "1x", " 1", "1 ", "0x10", "1kk", "+1", "--1"}) {
    EXPECT_THAT(Refused<int>(text), StatusIs(kInvalid)) << text;
  }
}

TEST(OptionValue, BooleansInAnyCase) {
  for (const char* text : {"true", "True", "YES", "on", "1"}) {
    EXPECT_TRUE(Parsed<bool>(text)) << text;
  }
  for (const char* text : {"false", "No", "OFF", "0"}) {
    bool value = true;
    EXPECT_THAT(ParseOption(text, &value), IsOk());
    EXPECT_FALSE(value) << text;
  }
  EXPECT_THAT(Refused<bool>("maybe"), StatusIs(kInvalid, HasSubstr("maybe")));
  EXPECT_THAT(Refused<bool>(""), StatusIs(kInvalid));
}

TEST(OptionValue, NumbersAreFinite) {
  EXPECT_EQ(Parsed<double>("0.9"), 0.9);
  EXPECT_EQ(Parsed<double>("-1e3"), -1000);
  for (const char* text : {"nan", "inf", "1e999", "", "1,5", "0.9x"}) {
    EXPECT_THAT(Refused<double>(text), StatusIs(kInvalid)) << text;
  }
}

TEST(OptionValue, DurationsHaveUnitsOrAreSeconds) {
  EXPECT_EQ(Parsed<absl::Duration>("45"), absl::Seconds(45));
  EXPECT_EQ(Parsed<absl::Duration>("0.5"), absl::Milliseconds(500));
  EXPECT_EQ(Parsed<absl::Duration>("1h30m"), absl::Minutes(90));
  for (const char* text : {"", "-1", "-2s", "5 apples", "s"}) {
    EXPECT_THAT(Refused<absl::Duration>(text), StatusIs(kInvalid)) << text;
  }
}

TEST(OptionValue, ShownTextReadsBackAsTheSameValue) {
  EXPECT_EQ(Parsed<double>(ShowOption(0.1)), 0.1);
  EXPECT_EQ(Parsed<uint64_t>(ShowOption(UINT64_MAX)), UINT64_MAX);
  EXPECT_EQ(Parsed<bool>(ShowOption(true)), true);
  EXPECT_EQ(Parsed<absl::Duration>(ShowOption(absl::Milliseconds(1500))),
            absl::Milliseconds(1500));
}

}  // namespace
}  // namespace tessera
