#include "proto/status_convert.h"

#include "gtest/gtest.h"

namespace tessera::proto {
namespace {

TEST(StatusConvert, CodesHaveTheSameNumbersOnBothSides) {
  EXPECT_EQ(static_cast<int>(absl::StatusCode::kCancelled), grpc::StatusCode::CANCELLED);
  EXPECT_EQ(static_cast<int>(absl::StatusCode::kResourceExhausted),
            grpc::StatusCode::RESOURCE_EXHAUSTED);
  EXPECT_EQ(static_cast<int>(absl::StatusCode::kUnavailable),
            grpc::StatusCode::UNAVAILABLE);
  EXPECT_EQ(static_cast<int>(absl::StatusCode::kDataLoss), grpc::StatusCode::DATA_LOSS);
  EXPECT_EQ(static_cast<int>(absl::StatusCode::kUnauthenticated),
            grpc::StatusCode::UNAUTHENTICATED);
}

TEST(StatusConvert, EveryCodeRoundTripsWithItsMessage) {
  for (int code = 0; code <= 16; ++code) {
    const absl::Status status(static_cast<absl::StatusCode>(code), "what was seen");
    EXPECT_EQ(FromGrpcStatus(ToGrpcStatus(status)), status);
  }
}

TEST(StatusConvert, ACodeThatAbseilLacksIsKUnknown) {
  const grpc::Status odd(grpc::StatusCode::DO_NOT_USE, "odd");
  EXPECT_EQ(FromGrpcStatus(odd).code(), absl::StatusCode::kUnknown);
}

}  // namespace
}  // namespace tessera::proto
