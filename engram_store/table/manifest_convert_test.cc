#include "engram_store/table/manifest_convert.h"

#include "gtest/gtest.h"

#include "proto/engram.pb.h"

namespace tessera::engram_store {
namespace {

EngramManifest Manifest() {
  EngramManifest manifest{.contract = "v41",
                          .max_ngram = 4,
                          .num_heads = 1,
                          .compressed_vocab_size = 10,
                          .pad_token_id = 2,
                          .seed = 7,
                          .tables = {}};
  manifest.tables.push_back(
      {.layout = {.layer_id = 1, .column_rows = {5, 7}, .width = 32},
       .multipliers = {uint64_t{1} << 60, 3},
       .digest = "ab"});
  manifest.tables.push_back({.layout = {.layer_id = 3,
                                        .column_rows = {11},
                                        .width = 64,
                                        .format = model::DType::kBF16},
                             .multipliers = {5},
                             .digest = ""});
  return manifest;
}

TEST(ManifestConvert, RoundTripsEveryField) {
  engram::v1::Manifest proto;
  ManifestToProto(Manifest(), &proto);
  EXPECT_EQ(ManifestFromProto(proto).value(), Manifest());
}

TEST(ManifestConvert, RefusesManifestsThatNoShardSends) {
  engram::v1::Manifest empty;
  EXPECT_EQ(ManifestFromProto(empty).status().code(), absl::StatusCode::kDataLoss);
  engram::v1::Manifest proto;
  ManifestToProto(Manifest(), &proto);
  engram::v1::Manifest bad = proto;
  bad.mutable_tables(0)->set_width(33);
  EXPECT_EQ(ManifestFromProto(bad).status().code(), absl::StatusCode::kDataLoss);
  bad = proto;
  bad.mutable_tables(0)->set_format(engram::v1::ROW_FORMAT_UNSPECIFIED);
  EXPECT_EQ(ManifestFromProto(bad).status().code(), absl::StatusCode::kDataLoss);
  bad = proto;
  bad.mutable_tables(0)->clear_column_rows();
  EXPECT_EQ(ManifestFromProto(bad).status().code(), absl::StatusCode::kDataLoss);
}

TEST(ManifestConvert, RowIdsAreLittleEndianAndWhole) {
  const std::vector<uint32_t> ids = {1, 0x04030201};
  const std::string bytes = RowIdsToBytes(ids);
  EXPECT_EQ(bytes, std::string("\1\0\0\0\1\2\3\4", 8));
  std::vector<uint32_t> back;
  EXPECT_TRUE(RowIdsFromBytes(bytes, &back).ok());
  EXPECT_EQ(back, ids);
  EXPECT_EQ(RowIdsFromBytes("abc", &back).code(), absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace tessera::engram_store
