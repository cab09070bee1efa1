// What ops compute over packed caches: the bits of a cache of activations that holds the
// same values. That the backends agree on packed rows: tests/parity.
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <random>
#include <vector>

#include "gtest/gtest.h"

#include "kernels/cache_view.h"
#include "kernels/kernel_backend.h"
#include "kernels/row_format.h"
#include "tests/testing/each_backend.h"

namespace tessera::kernels {
namespace {

constexpr uint64_t kSeed = 7;
constexpr int64_t kBlock = 8;

// One sequence whose blocks lie in falling order, and its queries.
struct Sequence {
  Sequence(const std::vector<int32_t>& query_positions, int64_t rows)
      : blocks(static_cast<size_t>((rows + kBlock - 1) / kBlock)),
        positions(query_positions),
        sequence(query_positions.size(), 0) {
    for (size_t i = 0; i < blocks.size(); ++i) {
      blocks[i] = static_cast<int32_t>(blocks.size() - 1 - i);
    }
  }
  PagedIndex index() {
    const auto count = static_cast<int64_t>(positions.size());
    return {.block_tables = {blocks.data(), DType::kI32, {1, num_blocks()}},
            .sequence_of_row = {sequence.data(), DType::kI32, {count}},
            .positions = {positions.data(), DType::kI32, {count}},
            .block_size = kBlock};
  }
  int64_t num_blocks() const { return static_cast<int64_t>(blocks.size()); }

  std::vector<int32_t> blocks;
  std::vector<int32_t> positions;
  std::vector<int32_t> sequence;
};

class PackedRows : public EachBackend {
 protected:
  std::vector<float> Random(int64_t count) {
    std::uniform_real_distribution<float> value(-1, 1);
    std::vector<float> values(static_cast<size_t>(count));
    for (float& x : values) {
      x = value(random_);
    }
    return values;
  }

  // The same rows twice.
  struct TwoCaches {
    std::vector<std::byte> packed_bytes;
    std::vector<float> values;
    CacheView packed;
    CacheView plain;
  };
  TwoCaches MakeCaches(const RowFormat& format, int64_t num_blocks) {
    TwoCaches caches;
    const int64_t rows = num_blocks * kBlock;
    caches.values = Random(rows * format.width);
    caches.packed_bytes.resize(static_cast<size_t>(rows * format.packed_bytes()));
    caches.packed = {{caches.packed_bytes.data(),
                      DType::kU8,
                      {num_blocks, kBlock, format.packed_bytes()}},
                     format};
    caches.plain =
        TensorView(caches.values.data(), DType::kF32, {num_blocks, kBlock, format.width});
    std::vector<int32_t> slots(static_cast<size_t>(rows));
    for (size_t i = 0; i < slots.size(); ++i) {
      slots[i] = static_cast<int32_t>(i);
    }
    backend_->StorePaged(
        *stream_, TensorView(caches.values.data(), DType::kF32, {rows, format.width}),
        Ints(slots, {rows}), caches.packed);
    for (int64_t row = 0; row < rows; ++row) {
      UnpackRow(format, caches.packed_bytes.data() + row * format.packed_bytes(),
                caches.values.data() + row * format.width);
    }
    return caches;
  }

  // Runs op(cache, out) over both caches.
  template <typename Op>
  void ExpectSameBits(const TwoCaches& caches, int64_t count, const Op& op) {
    std::vector<float> of_packed(static_cast<size_t>(count), -1.0F);
    std::vector<float> of_plain(static_cast<size_t>(count), -2.0F);
    op(caches.packed, of_packed.data());
    op(caches.plain, of_plain.data());
    EXPECT_EQ(std::memcmp(of_packed.data(), of_plain.data(), of_packed.size() * 4), 0)
        << "seed " << kSeed;
  }

  std::mt19937_64 random_{kSeed};
};

constexpr RowFormat kMlaRow = {RowCode::kE4M3, RowScale::kF32, 152, 136, 128};
constexpr RowFormat kV4Row = {RowCode::kE4M3, RowScale::kE8M0, 160, 128, 64};
constexpr RowFormat kFp4Row = {RowCode::kFp4, RowScale::kE4M3, 160, 160, 16};
constexpr RowFormat kIndexKey = {RowCode::kFp4, RowScale::kE8M0, 64, 64, 32};

TEST_P(PackedRows, AreStoredAsTheCodecSaysAndOnlyWhereASlotIs) {
  for (const RowFormat& format : {kMlaRow, kV4Row, kFp4Row, kIndexKey}) {
    const auto bytes = static_cast<size_t>(format.packed_bytes());
    std::vector<float> x = Random(3 * format.width);
    std::vector<int32_t> slots = {9, -1, 2};
    std::vector<std::byte> cache(2 * kBlock * bytes, std::byte{0x11});
    backend_->StorePaged(
        *stream_, Floats(x, {3, format.width}), Ints(slots, {3}),
        {{cache.data(), DType::kU8, {2, kBlock, format.packed_bytes()}}, format});
    std::vector<std::byte> expected(cache.size(), std::byte{0x11});
    PackRow(format, x.data(), expected.data() + 9 * bytes);
    PackRow(format, x.data() + 2 * format.width, expected.data() + 2 * bytes);
    EXPECT_EQ(cache, expected);
  }
}

// The rounding that a model defines is what storing does: nothing is rounded twice.
TEST_P(PackedRows, KeepFakeQuantizedValues) {
  for (const RowFormat& format :
       {kIndexKey, kFp4Row, RowFormat{RowCode::kE4M3, RowScale::kE8M0, 128, 128, 32}}) {
    for (const float unit : {1e-9F, 3e-3F, 1.0F, 1e6F}) {
      std::vector<float> x = Random(format.width);
      for (float& value : x) {
        value *= unit;
      }
      const TensorView groups = Floats(x, {1, format.width}).SplitLast(format.group);
      if (format.code == RowCode::kE4M3) {
        backend_->FakeQuantizeE4M3(*stream_, groups);
      } else {
        backend_->FakeQuantizeFp4(
            *stream_, groups,
            format.scale == RowScale::kE4M3 ? Fp4Scale::kE4M3 : Fp4Scale::kE8M0);
      }
      std::vector<std::byte> row(static_cast<size_t>(format.packed_bytes()));
      std::vector<float> kept(x.size());
      PackRow(format, x.data(), row.data());
      UnpackRow(format, row.data(), kept.data());
      EXPECT_EQ(std::memcmp(kept.data(), x.data(), x.size() * 4), 0) << unit;
    }
  }
}

TEST_P(PackedRows, OfMlaGiveTheBitsOfActivations) {
  constexpr int64_t kHeads = 9;
  const std::vector<int32_t> at = {0, 60, 4500};
  Sequence sequence(at, 4501);
  const TwoCaches caches = MakeCaches(kMlaRow, sequence.num_blocks());
  std::vector<float> q = Random(3 * kHeads * 136);
  std::vector<float> q_rope = Random(3 * kHeads * 16);
  std::vector<int32_t> selected;
  for (int64_t t = 0; t < 3; ++t) {
    for (int32_t i = 0; i < 40; ++i) {
      selected.push_back(i * (at[static_cast<size_t>(t)] / 40));
    }
  }
  std::vector<int32_t> counts = {1, 40, 40};
  MlaAttentionArgs args = {.q_latent = Floats(q, {3, kHeads, 136}),
                           .q_rope = Floats(q_rope, {3, kHeads, 16}),
                           .rows = {},
                           .index = sequence.index(),
                           .selected = {},
                           .num_selected = {},
                           .scale = 0.3,
                           .out = {}};
  const auto attend = [&](const CacheView& cache, float* out) {
    args.rows = cache;
    args.out = TensorView(out, DType::kF32, {3, kHeads, 136});
    backend_->MlaAttention(*stream_, args);
  };
  ExpectSameBits(caches, 3 * kHeads * 136, attend);
  args.selected = Ints(selected, {3, 40});
  args.num_selected = Ints(counts, {3});
  ExpectSameBits(caches, 3 * kHeads * 136, attend);
}

TEST_P(PackedRows, OfWindowAndEntriesGiveTheBitsOfActivations) {
  constexpr int64_t kHeads = 5;
  Sequence window({200, 4600}, 4601);
  Sequence entries({200, 4600}, 2301);
  const TwoCaches window_rows = MakeCaches(kV4Row, window.num_blocks());
  std::vector<float> q = Random(2 * kHeads * 160);
  std::vector<float> sinks = Random(kHeads);
  std::vector<int32_t> begin = {73, 4473};
  std::vector<int32_t> end = {201, 4601};
  for (const RowFormat& format : {kV4Row, kFp4Row}) {
    const TwoCaches entry_rows = MakeCaches(format, entries.num_blocks());
    const auto attend = [&](const CacheView& cache, float* out) {
      const bool packed = cache.format.is_packed();
      backend_->SharedKvAttention(
          *stream_, {.q = Floats(q, {2, kHeads, 160}),
                     .window_rows = packed ? window_rows.packed : window_rows.plain,
                     .window = window.index(),
                     .window_begin = Ints(begin, {2}),
                     .window_end = Ints(end, {2}),
                     .entries = cache,
                     .entry_index = entries.index(),
                     .ratio = 2,
                     .selected = {},
                     .num_selected = {},
                     .sinks = sinks.data(),
                     .scale = 0.2,
                     .out = TensorView(out, DType::kF32, {2, kHeads, 160})});
    };
    ExpectSameBits(entry_rows, 2 * kHeads * 160, attend);
  }
}

TEST_P(PackedRows, OfIndexKeysGiveTheSelectionOfActivations) {
  constexpr int64_t kHeads = 3;
  constexpr int64_t kTopk = 33;
  for (const std::vector<int32_t>& at :
       {std::vector<int32_t>{4600}, std::vector<int32_t>{90, 4600}}) {
    const auto queries = static_cast<int64_t>(at.size());
    Sequence sequence(at, 4601);
    const TwoCaches keys = MakeCaches(kIndexKey, sequence.num_blocks());
    std::vector<float> q = Random(queries * kHeads * 64);
    std::vector<float> weights = Random(queries * kHeads);
    std::vector<int32_t> blocks(static_cast<size_t>(queries * 20));
    const auto select = [&](const CacheView& cache, TensorView candidates,
                            TensorView candidates_out) {
      std::vector<int32_t> selected(static_cast<size_t>(queries * kTopk));
      std::vector<int32_t> count(at.size());
      backend_->IndexerSelect(*stream_, {.q = Floats(q, {queries, kHeads, 64}),
                                         .weights = Floats(weights, {queries, kHeads}),
                                         .keys = cache,
                                         .index = sequence.index(),
                                         .topk = kTopk,
                                         .selected = Ints(selected, {queries, kTopk}),
                                         .num_selected = Ints(count, {queries}),
                                         .candidate_block = 8,
                                         .candidates = candidates,
                                         .candidates_out = candidates_out});
      return selected;
    };
    const TensorView candidates = Ints(blocks, {queries, 20});
    EXPECT_EQ(select(keys.packed, {}, candidates), select(keys.plain, {}, {}));
    const std::vector<int32_t> of_packed = blocks;
    select(keys.plain, {}, candidates);
    EXPECT_EQ(of_packed, blocks);
    EXPECT_EQ(select(keys.packed, candidates, {}), select(keys.plain, candidates, {}));
  }
}

INSTANTIATE_TEST_SUITE_P(Levels, PackedRows, EveryLevel(), LevelName);

}  // namespace
}  // namespace tessera::kernels
