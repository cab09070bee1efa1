// The choice of launches is a function of the shape: it fits the device, covers every
// row, and says why it refuses one.
#include "kernels/cuda/mla/mla_decode_config.h"

#include <cstdint>

#include "gtest/gtest.h"

#include "kernels/cuda/primitives/device_types.h"

namespace tessera::kernels::cuda {
namespace {

const MlaDecodeShape kV3 = {
    .tokens = 64, .heads = 128, .block_size = 64, .rows_max = 8192};

TEST(MlaDecodeConfig, CoversHeadsAndRows) {
  for (const int64_t heads : {8, 16, 24, 64, 72, 128}) {
    for (const int64_t rows : {0, 1, 1023, 1024, 1025, 163'840}) {
      MlaDecodeShape shape = kV3;
      shape.heads = heads;
      shape.rows_max = rows;
      ASSERT_EQ(CheckMlaDecode(shape), MlaDecodeRefusal::kNone);
      const MlaDecodeConfig config = ChooseMlaDecode(shape);
      EXPECT_GE(int64_t{config.head_tiles} * kMlaTileHeads, heads) << config.ToString();
      EXPECT_LT(int64_t{config.head_tiles - 1} * kMlaTileHeads, heads);
      EXPECT_GE(int64_t{config.splits} * kMlaSplitRows, rows) << config.ToString();
      EXPECT_GE(config.splits, 1U);
      EXPECT_LE((int64_t{config.splits} - 1) * kMlaSplitRows, rows);
    }
  }
}

TEST(MlaDecodeConfig, BoxesDivideTilesAndWhatLiesTogether) {
  for (const int64_t size : {8, 16, 24, 48, 64, 128, 256}) {
    MlaDecodeShape shape = kV3;
    shape.block_size = size;
    shape.heads = size;
    const MlaDecodeConfig config = ChooseMlaDecode(shape);
    for (const uint32_t box : {config.cache_box_rows, config.query_box_rows}) {
      EXPECT_EQ(size % box, 0) << config.ToString();
      EXPECT_EQ(kMlaTileRows % box, 0U) << config.ToString();
      EXPECT_GE(box, 8U);
    }
  }
  EXPECT_EQ(ChooseMlaDecode(kV3).cache_box_rows, 64U);
  EXPECT_EQ(ChooseMlaDecode(kV3).query_box_rows, 64U);
}

TEST(MlaDecodeConfig, OnlySeveralSplitsNeedAWorkspace) {
  MlaDecodeShape shape = kV3;
  EXPECT_EQ(ChooseMlaDecode(shape).splits, 8U);
  EXPECT_EQ(ChooseMlaDecode(shape).workspace_bytes, int64_t{64} * 128 * 8 * 514 * 4);
  shape.rows_max = kMlaSplitRows;
  EXPECT_EQ(ChooseMlaDecode(shape).workspace_bytes, 0);
}

TEST(MlaDecodeConfig, RefusalsHaveReasons) {
  const auto refusal = [](auto change) {
    MlaDecodeShape shape = kV3;
    change(shape);
    return CheckMlaDecode(shape);
  };
  EXPECT_EQ(refusal([](auto&) {}), MlaDecodeRefusal::kNone);
  EXPECT_EQ(refusal([](auto& shape) { shape.latent = 256; }), MlaDecodeRefusal::kWidth);
  EXPECT_EQ(refusal([](auto& shape) { shape.rope = 32; }), MlaDecodeRefusal::kWidth);
  EXPECT_EQ(refusal([](auto& shape) { shape.rows.width = 512; }),
            MlaDecodeRefusal::kRows);
  EXPECT_EQ(refusal([](auto& shape) { shape.selects = true; }),
            MlaDecodeRefusal::kSelection);
  EXPECT_EQ(refusal([](auto& shape) {
              shape.rows = kMlaPackedRows;
              shape.selects = true;
              shape.block_size = 3;
            }),
            MlaDecodeRefusal::kNone);
  EXPECT_EQ(refusal([](auto& shape) {
              shape.rows = kMlaPackedRows;
              shape.rows.group = 64;
            }),
            MlaDecodeRefusal::kRows);
  EXPECT_EQ(refusal([](auto& shape) { shape.heads = 0; }), MlaDecodeRefusal::kHeads);
  EXPECT_EQ(refusal([](auto& shape) { shape.heads = 12; }), MlaDecodeRefusal::kHeads);
  EXPECT_EQ(refusal([](auto& shape) { shape.block_size = 0; }),
            MlaDecodeRefusal::kBlockSize);
  EXPECT_EQ(refusal([](auto& shape) { shape.block_size = 20; }),
            MlaDecodeRefusal::kBlockSize);
  EXPECT_EQ(refusal([](auto& shape) { shape.tokens = int64_t{1} << 28; }),
            MlaDecodeRefusal::kGrid);
  EXPECT_EQ(refusal([](auto& shape) { shape.rows_max = int64_t{1} << 27; }),
            MlaDecodeRefusal::kGrid);
  EXPECT_EQ(MlaDecodeRefusalName(MlaDecodeRefusal::kWidth), "width");
}

TEST(MlaDecodeConfig, ABlockFitsTheDevice) {
  EXPECT_LE(kMlaPackedSharedBytes, kMaxSharedBytes);
  // As tools/mla_roofline.py has them.
  EXPECT_EQ(kMlaSharedBytes, 222'016U);
  EXPECT_EQ(kMlaPackedSharedBytes, 226'112U);
  EXPECT_LE(kMlaThreads, kMaxBlockThreads);
}

}  // namespace
}  // namespace tessera::kernels::cuda
