// Compressed attention by the CUDA ops under the simulator: pooled entries, their
// selection and attention over them, with the reference's very bits and picks.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <string>
#include <vector>

#include "gtest/gtest.h"

#include "kernels/cuda/cuda_ops.h"
#include "kernels/reference/reference_ops.h"
#include "tests/testing/simulated_device.h"

namespace tessera::kernels::cuda {
namespace {

// Two sequences in blocks of mixed order; `blocks` for each.
PagedIndex Pages(SimulatedDevice& device, const std::vector<int32_t>& positions,
                 int32_t blocks, int64_t block_size) {
  std::vector<int32_t> table;
  for (int32_t i = 0; i < 2 * blocks; ++i) {
    table.push_back(2 * blocks - 1 - i);
  }
  std::vector<int32_t> sequences;
  for (size_t t = 0; t < positions.size(); ++t) {
    sequences.push_back(static_cast<int32_t>(t % 2));
  }
  return {.block_tables = device.Ints(table).Reshape({2, blocks}),
          .sequence_of_row = device.Ints(sequences),
          .positions = device.Ints(positions),
          .block_size = block_size};
}

void ToDevice(const SimulatedDevice& device, std::initializer_list<TensorView*> views) {
  for (TensorView* view : views) {
    if (view->rank > 0) {
      *view = device.On(*view);
    }
  }
}
void ToDevice(const SimulatedDevice& device, PagedIndex* index) {
  ToDevice(device, {&index->block_tables, &index->sequence_of_row, &index->positions});
}

TEST(CudaCompress, EntriesHaveTheReferencesBits) {
  struct Shape {
    int64_t dim;
    int64_t ratio;
    bool overlap;
  };
  for (uint64_t seed = 1; seed <= kSeeds; ++seed) {
    for (const Shape& shape : {Shape{17, 4, true}, Shape{300, 5, true},
                               Shape{33, 1, false}, Shape{8, 6, false}}) {
      SimulatedDevice device(seed);
      CompressArgs args;
      const int64_t channels = shape.overlap ? 2 * shape.dim : shape.dim;
      args.values = device.Random({8, 7, channels});
      args.gates = device.Random({8, 7, channels});
      // The first entry has no tokens before it.
      args.index = Pages(device, {3, 4, 5, 19, 23, 24, 0}, 4, 7);
      args.ratio = shape.ratio;
      args.overlap = shape.overlap;
      args.out = device.Random({7, shape.dim});
      device.Upload();
      CompressArgs on = args;
      ToDevice(device, {&on.values, &on.gates, &on.out});
      ToDevice(device, &on.index);
      Compress(device.stream(), on);
      reference::Compress<float>(args);
      device.ExpectEqual(std::to_string(shape.ratio) + " tokens an entry");
    }
  }
}

class SelectRun {
 public:
  SelectRun(uint64_t seed, int64_t heads, int64_t dim,
            const std::vector<int32_t>& positions, int64_t topk)
      : device(seed), rows_(std::ssize(positions)) {
    const int32_t last = *std::max_element(positions.begin(), positions.end());
    args.q = device.Random({rows_, heads, dim});
    args.weights = device.Random({rows_, heads});
    args.index = Pages(device, positions, last / 12 + 1, 12);
    args.keys = device.Random({2 * (last / 12 + 1), 12, dim});
    args.topk = topk;
    args.selected = device.Ids(rows_ * topk, 9).Reshape({rows_, topk});
    args.num_selected = device.Ids(rows_, 9);
  }
  TensorView Blocks(int64_t count) {
    return device.Ids(rows_ * count, 9).Reshape({rows_, count});
  }
  void Compare(const std::string& what) {
    device.Upload();
    IndexerSelectArgs on = args;
    ToDevice(device, {&on.q, &on.weights, &on.keys.rows, &on.selected, &on.num_selected,
                      &on.candidates, &on.candidates_out});
    ToDevice(device, &on.index);
    IndexerSelect(device.stream(), on);
    reference::IndexerSelect<float>(args);
    device.ExpectEqual(what);
  }

  SimulatedDevice device;
  IndexerSelectArgs args;

 private:
  int64_t rows_;
};

TEST(CudaIndexer, SelectsWhatTheReferenceSelects) {
  for (uint64_t seed = 1; seed <= kSeeds; ++seed) {
    for (const int64_t topk : {1, 7, 40}) {
      // No entry, all that compete, and more than one chunk of them.
      SelectRun run(seed, 3, 17, {0, 30, 91}, topk);
      run.args.ratio = 2;
      run.Compare("two tokens an entry");
    }
    SelectRun chunks(seed, 2, 5, {2 * static_cast<int32_t>(kEntriesAtOnce) + 9}, 33);
    chunks.Compare("three chunks");
    SelectRun packed(seed, 17, 34, {50, 20}, 9);
    packed.args.keys = packed.device.Packed(packed.args.keys.rows,
                                            {RowCode::kFp4, RowScale::kE8M0, 34, 34, 32});
    packed.Compare("packed keys");
  }
}

TEST(CudaIndexer, TiesGoToTheLowerEntryAndDamageComesFirst) {
  for (uint64_t seed = 1; seed <= kSeeds; ++seed) {
    SelectRun run(seed, 2, 4, {80, 70, 60}, 11);
    for (int64_t head = 0; head < 2; ++head) {
      for (int64_t i = 0; i < 4; ++i) {
        run.args.q.row<float>(1, head)[i] = 0;  // every score of it is 0, or NaN
      }
    }
    run.args.weights.row<float>(1)[0] = -1;  // and some of them -0
    run.args.keys.rows.row<float>(3, 5)[2] = std::nanf("");
    run.args.keys.rows.row<float>(9, 1)[0] = std::nanf("");
    run.Compare("ties and damage");
  }
}

TEST(CudaIndexer, CandidateBlocksAreTheReferences) {
  for (uint64_t seed = 1; seed <= kSeeds; ++seed) {
    for (const int64_t size : {3, 8}) {
      for (const int64_t count : {1, 4, 40}) {
        SelectRun picks(seed, 2, 9, {0, 97, 96}, 5);
        picks.args.candidate_block = size;
        picks.args.candidates_out = picks.Blocks(count);
        picks.args.ratio = 2;
        picks.Compare("makes blocks");
      }
      SelectRun keeps(seed, 2, 9, {0, 97, 95}, 5);
      keeps.args.candidate_block = size;
      keeps.args.candidates =
          keeps.device.Ints({-1, -1, -1, 0, 3, 12, 2, 11, -1}).Reshape({3, 3});
      keeps.Compare("keeps to blocks");
    }
  }
}

TEST(CudaSharedKv, AttentionHasTheReferencesBits) {
  enum class Entries { kNone, kAll, kSelected, kPacked };
  for (uint64_t seed = 1; seed <= kSeeds; ++seed) {
    for (const auto entries :
         {Entries::kNone, Entries::kAll, Entries::kSelected, Entries::kPacked}) {
      SimulatedDevice device(seed);
      SharedKvAttentionArgs args;
      args.q = device.Random({3, 5, 34});
      args.out = device.Random({3, 5, 34});
      args.window_rows = device.Random({8, 6, 34});
      args.window = Pages(device, {22, 9, 0}, 4, 6);
      args.window_begin = device.Ints({15, 2, 0});
      args.window_end = device.Ints({23, 10, 0});  // the last one sees nothing
      args.scale = 0.43;
      const TensorView sinks = device.Random({1, 5});
      args.sinks = sinks.as<float>();
      if (entries != Entries::kNone) {
        args.entries = device.Random({8, 3, 34});
        args.entry_index = Pages(device, {22, 9, 0}, 4, 3);
        args.ratio = 2;
      }
      if (entries == Entries::kSelected) {
        args.selected = device.Ints({0, 4, 9, 1, -1, -1, -1, -1, -1}).Reshape({3, 3});
        args.num_selected = device.Ints({3, 1, 0});
      }
      if (entries == Entries::kPacked) {
        args.window_rows = device.Packed(args.window_rows.rows,
                                         {RowCode::kE4M3, RowScale::kE8M0, 34, 17, 24});
        args.entries = device.Packed(args.entries.rows,
                                     {RowCode::kFp4, RowScale::kE4M3, 34, 34, 16});
      }
      device.Upload();
      SharedKvAttentionArgs on = args;
      ToDevice(device,
               {&on.q, &on.out, &on.window_rows.rows, &on.window_begin, &on.window_end,
                &on.entries.rows, &on.selected, &on.num_selected});
      ToDevice(device, &on.window);
      if (on.entries.is_present()) {
        ToDevice(device, &on.entry_index);
      }
      on.sinks = device.On(sinks).as<float>();
      SharedKvAttention(device.stream(), on);
      reference::SharedKvAttention<float>(args);
      device.ExpectEqual("entries of kind " + std::to_string(static_cast<int>(entries)));
    }
  }
}

TEST(CudaSharedKv, RowsOfSeveralPassesHaveTheReferencesBits) {
  SimulatedDevice device(7);
  SharedKvAttentionArgs args;
  args.q = device.Random({1, 2, 3});
  args.out = device.Random({1, 2, 3});
  args.window_rows = device.Random({2, 9000, 3});
  args.window = Pages(device, {8999}, 1, 9000);
  args.window_begin = device.Ints({100});
  args.window_end = device.Ints({9000});
  args.scale = 2;
  const TensorView sinks = device.Random({1, 2});
  args.sinks = sinks.as<float>();
  device.Upload();
  SharedKvAttentionArgs on = args;
  ToDevice(device,
           {&on.q, &on.out, &on.window_rows.rows, &on.window_begin, &on.window_end});
  ToDevice(device, &on.window);
  on.sinks = device.On(sinks).as<float>();
  SharedKvAttention(device.stream(), on);
  reference::SharedKvAttention<float>(args);
  device.ExpectEqual("three passes");
}

}  // namespace
}  // namespace tessera::kernels::cuda
