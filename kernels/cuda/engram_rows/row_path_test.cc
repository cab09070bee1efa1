// Few rows of a table that the device reads are the device's; all others the host's.
#include "kernels/cuda/engram_rows/row_path.h"

#include "gtest/gtest.h"

namespace tessera::kernels::cuda {
namespace {

TEST(RowPath, FewRowsOfARegisteredTableAreReadByTheDevice) {
  const RowPathLimits limits = {.max_device_rows = 48};
  EXPECT_EQ(ChooseRowPath(TablePlace::kRegistered, 1, limits), RowPath::kDeviceReads);
  EXPECT_EQ(ChooseRowPath(TablePlace::kRegistered, 48, limits), RowPath::kDeviceReads);
  EXPECT_EQ(ChooseRowPath(TablePlace::kRegistered, 49, limits), RowPath::kHostGathers);
}

TEST(RowPath, WhatTheDeviceCannotReadIsGatheredHoweverFew) {
  EXPECT_EQ(ChooseRowPath(TablePlace::kHost, 1, {}), RowPath::kHostGathers);
  EXPECT_EQ(ChooseRowPath(TablePlace::kElsewhere, 1, {}), RowPath::kHostGathers);
}

TEST(RowPath, ADecodeBatchIsTheDevicesAndAPrefillChunkIsNot) {
  constexpr int64_t kRowsOfAToken = 24;  // of a layer of V4.1
  EXPECT_EQ(ChooseRowPath(TablePlace::kRegistered, 128 * kRowsOfAToken, {}),
            RowPath::kDeviceReads);
  EXPECT_EQ(ChooseRowPath(TablePlace::kRegistered, 1024 * kRowsOfAToken, {}),
            RowPath::kHostGathers);
}

}  // namespace
}  // namespace tessera::kernels::cuda
