#include "model/formats/dtype.h"

#include <optional>

#include "gtest/gtest.h"

namespace tessera::model {
namespace {

TEST(DType, NamesGoBothWays) {
  for (const char* name : {"F64", "F32", "F16", "BF16", "F8_E4M3", "F8_E8M0", "I8", "U8",
                           "I32", "I64", "BOOL"}) {
    const std::optional<DType> dtype = DTypeFromName(name);
    ASSERT_TRUE(dtype.has_value()) << name;
    EXPECT_EQ(DTypeName(*dtype), name);
  }
  EXPECT_EQ(DTypeFromName("F8_E5M2"), std::nullopt);
  EXPECT_EQ(DTypeFromName("FP4"), std::nullopt);
}

TEST(DType, Fp4TakesHalfAByte) {
  EXPECT_EQ(DTypeBytes(DType::kFp4, 6), 3u);
  EXPECT_EQ(DTypeBytes(DType::kBF16, 6), 12u);
}

}  // namespace
}  // namespace tessera::model
