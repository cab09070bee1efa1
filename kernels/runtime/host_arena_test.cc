#include "kernels/runtime/host_arena.h"

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <utility>
#include <vector>

#include "gtest/gtest.h"

namespace tessera::kernels {
namespace {

uintptr_t AddressOf(const DeviceBuffer& buffer) {
  return reinterpret_cast<uintptr_t>(buffer.data());
}

DeviceBuffer Take(HostArena& arena, size_t bytes) {
  auto buffer = arena.Allocate(bytes);
  EXPECT_TRUE(buffer.ok()) << buffer.status();
  return *std::move(buffer);
}

TEST(HostArena, BuffersLieBehindEachOtherAlignedAndApart) {
  HostArena arena;
  const size_t sizes[] = {1, 64, 0, 100, 3 << 20, 65};
  std::vector<DeviceBuffer> buffers;
  for (const size_t bytes : sizes) {
    buffers.push_back(Take(arena, bytes));
    EXPECT_EQ(buffers.back().size_bytes(), bytes);
    EXPECT_EQ(AddressOf(buffers.back()) % 64, 0u);
    std::memset(buffers.back().data(), static_cast<int>(buffers.size()), bytes);
  }
  for (size_t i = 0; i + 1 < buffers.size(); ++i) {
    EXPECT_LT(AddressOf(buffers[i]) + buffers[i].size_bytes(), AddressOf(buffers[i + 1]));
    EXPECT_LE(AddressOf(buffers[i + 1]), AddressOf(buffers[i]) + sizes[i] + 128);
  }
  for (size_t i = 0; i < buffers.size(); ++i) {
    const auto* bytes = static_cast<const uint8_t*>(buffers[i].data());
    for (size_t at = 0; at < sizes[i]; ++at) {
      ASSERT_EQ(bytes[at], i + 1) << at;
    }
  }
}

TEST(HostArena, WhatDoesNotFitBeginsANewRun) {
  HostArena arena;
  const DeviceBuffer first = Take(arena, HostArena::kRunBytes - 100);
  const DeviceBuffer second = Take(arena, 200);
  std::memset(first.data(), 1, first.size_bytes());
  std::memset(second.data(), 2, second.size_bytes());
  const bool inside = AddressOf(second) >= AddressOf(first) &&
                      AddressOf(second) < AddressOf(first) + HostArena::kRunBytes;
  EXPECT_FALSE(inside);
  const DeviceBuffer whole = Take(arena, HostArena::kRunBytes);
  const DeviceBuffer larger = Take(arena, HostArena::kRunBytes + 1);
  std::memset(whole.data(), 3, whole.size_bytes());
  std::memset(larger.data(), 4, larger.size_bytes());
  EXPECT_EQ(AddressOf(whole) % 64, 0u);
  EXPECT_EQ(AddressOf(larger) % 64, 0u);
}

TEST(HostArena, BuffersOutliveTheArenaAndEachOther) {
  auto arena = std::make_unique<HostArena>();
  DeviceBuffer kept = Take(*arena, 4096);
  {
    const DeviceBuffer other = Take(*arena, 4096);
    std::memset(other.data(), 1, other.size_bytes());
  }
  arena.reset();
  std::memset(kept.data(), 2, kept.size_bytes());
  EXPECT_EQ(static_cast<const uint8_t*>(kept.data())[4095], 2);
}

TEST(HostArena, MoreThanThereIsIsRefused) {
  HostArena arena;
  EXPECT_EQ(arena.Allocate(SIZE_MAX / 2 + 1).status().code(),
            absl::StatusCode::kResourceExhausted);
  EXPECT_TRUE(arena.Allocate(1).ok());
}

}  // namespace
}  // namespace tessera::kernels
