// Parity rows of compressed attention: pooled entries, their selection in one or two
// levels, and attention over a window and entries.
#include <algorithm>

#include "fmt/format.h"

#include "tests/parity/op_run.h"
#include "tests/parity/paged_cases.h"

namespace tessera::parity {
namespace {

using kernels::CompressArgs;
using kernels::IndexerSelectArgs;
using kernels::RowCode;
using kernels::RowScale;
using kernels::SharedKvAttentionArgs;
using kernels::VisibleEntries;

struct CompressShape {
  int64_t rows;
  int64_t dim;
  int64_t ratio;
  bool overlap;
  int64_t first;
  int64_t step = 3;
  int64_t padding = 0;
};

ParityCase CompressCase(CompressShape shape) {
  return {fmt::format("Compress_{}x{}_ratio{}{}_from{}_padding{}", shape.rows, shape.dim,
                      shape.ratio, shape.overlap ? "_overlap" : "", shape.first,
                      shape.padding),
          [=](OpRun& run) {
            const Paged paged =
                MakePaged(run, {shape.rows, shape.first, shape.step, shape.padding}, 8);
            const int64_t channels = shape.overlap ? 2 * shape.dim : shape.dim;
            CompressArgs all;
            all.values = run.Random({paged.num_blocks, 8, channels});
            all.gates = run.Random({paged.num_blocks, 8, channels});
            run.ScaleBy(all.gates, 8);
            all.index = paged.index;
            all.ratio = shape.ratio;
            all.overlap = shape.overlap;
            all.out = run.Output("out", {shape.rows, shape.dim});
            run.ForRows(shape.rows, [&](int64_t begin, int64_t count) {
              CompressArgs args = all;
              args.index = RowsOf(all.index, begin, count);
              args.out = all.out.Rows(begin, count);
              run.backend().Compress(run.stream(), args);
            });
          }};
}

struct IndexShape {
  int64_t rows;
  int64_t heads;
  int64_t dim;
  int64_t first;
  int64_t ratio;
  int64_t topk;
  int64_t candidate_block = 0;
  int64_t candidates = 0;
  bool packed = false;
  int64_t padding = 0;
};

// With candidate blocks: one op makes them, a second one with other scores keeps to them.
ParityCase EntryIndexerCase(IndexShape shape) {
  return {
      fmt::format("IndexerSelect_{}x{}x{}_from{}_ratio{}_top{}_blocks{}of{}{}_pad{}",
                  shape.rows, shape.heads, shape.dim, shape.first, shape.ratio,
                  shape.topk, shape.candidates, shape.candidate_block,
                  shape.packed ? "_packed" : "", shape.padding),
      [=](OpRun& run) {
        constexpr int64_t kBlock = 24;  // tokens; a multiple of every ratio in use
        const int64_t entries = kBlock / shape.ratio;
        Paged paged = MakePaged(run, {shape.rows, shape.first, 3, shape.padding}, kBlock);
        IndexerSelectArgs all;
        all.q = run.Random({shape.rows, shape.heads, shape.dim});
        all.weights = run.Random({shape.rows, shape.heads});
        all.keys = run.Random({paged.num_blocks, entries, shape.dim});
        if (shape.packed) {
          all.keys = run.Packed(
              all.keys.rows, {RowCode::kFp4, RowScale::kE8M0, shape.dim, shape.dim, 32});
        }
        all.index = paged.index;
        all.index.block_size = entries;
        all.ratio = shape.ratio;
        all.topk = shape.topk;
        all.candidate_block = shape.candidate_block;
        const auto select = [&](const char* name, const TensorView& in,
                                const TensorView& made) {
          all.selected =
              run.IntOutput(fmt::format("{}_selected", name), {shape.rows, shape.topk});
          all.num_selected = run.IntOutput(fmt::format("{}_num", name), {shape.rows});
          run.ForRows(shape.rows, [&](int64_t begin, int64_t count) {
            IndexerSelectArgs args = all;
            args.q = all.q.Rows(begin, count);
            args.weights = all.weights.Rows(begin, count);
            args.index = RowsOf(all.index, begin, count);
            args.selected = all.selected.Rows(begin, count);
            args.num_selected = all.num_selected.Rows(begin, count);
            args.candidates = in.rank > 0 ? in.Rows(begin, count) : in;
            args.candidates_out = made.rank > 0 ? made.Rows(begin, count) : made;
            run.backend().IndexerSelect(run.stream(), args);
          });
        };
        if (shape.candidates == 0) {
          select("one_level", {}, {});
          return;
        }
        const TensorView blocks =
            run.IntOutput("candidates", {shape.rows, shape.candidates});
        select("source", {}, blocks);
        all.q = run.Random({shape.rows, shape.heads, shape.dim});
        select("restricted", blocks, {});
      }};
}

struct SharedKvShape {
  int64_t rows;
  int64_t heads;
  int64_t dim;
  int64_t first;
  int64_t window;
  int64_t ratio = 0;  // 0: no entries
  int64_t topk = 0;   // 0: all that are visible
  int64_t ahead = 0;  // positions after its own that a query sees too
  bool packed = false;
  int64_t padding = 0;

  QueryRows queries() const { return {rows, first, 3, padding}; }
};

// Every third of the visible entries, as far as they go.
void SelectSome(OpRun& run, const SharedKvShape& shape, SharedKvAttentionArgs* args) {
  std::vector<int32_t> selected;
  std::vector<int32_t> counts;
  for (int64_t t = 0; t < shape.rows; ++t) {
    const int64_t visible = VisibleEntries(shape.queries().Position(t), shape.ratio);
    const int64_t count = std::min(shape.topk, (visible + 2) / 3);
    for (int64_t i = 0; i < shape.topk; ++i) {
      selected.push_back(i < count ? static_cast<int32_t>(3 * i) : -1);
    }
    counts.push_back(static_cast<int32_t>(count));
  }
  args->selected = run.Ints({shape.rows, shape.topk}, selected);
  args->num_selected = run.Ints({shape.rows}, counts);
}

SharedKvAttentionArgs SharedKvInputs(OpRun& run, const SharedKvShape& shape) {
  constexpr int64_t kBlock = 12;
  QueryRows ahead = shape.queries();
  ahead.first += shape.ahead;
  const Paged tail = MakePaged(run, ahead, kBlock);
  const Paged paged = MakePaged(run, shape.queries(), kBlock);
  std::vector<int32_t> begin;
  std::vector<int32_t> end;
  for (int64_t t = 0; t < shape.rows; ++t) {
    const int64_t position = shape.queries().Position(t);
    const bool sees_none = shape.window == 0 || position < 0;
    begin.push_back(
        static_cast<int32_t>(std::max<int64_t>(0, position - shape.window + 1)));
    end.push_back(
        static_cast<int32_t>(sees_none ? begin.back() : position + 1 + shape.ahead));
  }
  SharedKvAttentionArgs args;
  args.q = run.Random({shape.rows, shape.heads, shape.dim});
  args.window_rows = run.Random({tail.num_blocks, kBlock, shape.dim});
  args.window = tail.index;
  args.window_begin = run.Ints({shape.rows}, begin);
  args.window_end = run.Ints({shape.rows}, end);
  if (shape.ratio > 0) {
    const int64_t entries = kBlock / shape.ratio;
    args.entries = run.Random({paged.num_blocks, entries, shape.dim});
    args.entry_index = paged.index;
    args.entry_index.block_size = entries;
    args.ratio = shape.ratio;
  }
  if (shape.packed) {
    args.window_rows = run.Packed(args.window_rows.rows, {RowCode::kE4M3, RowScale::kE8M0,
                                                          shape.dim, shape.dim / 2, 24});
    args.entries = run.Packed(args.entries.rows,
                              {RowCode::kFp4, RowScale::kE4M3, shape.dim, shape.dim, 16});
  }
  if (shape.topk > 0) {
    SelectSome(run, shape, &args);
  }
  args.sinks = run.Floats(shape.heads, -3, 3);
  args.scale = 0.43;
  args.out = run.Output("out", {shape.rows, shape.heads, shape.dim});
  return args;
}

ParityCase SharedKvCase(SharedKvShape shape) {
  return {fmt::format(
              "SharedKvAttention_{}x{}x{}_from{}_window{}+{}_ratio{}_top{}{}_pad{}",
              shape.rows, shape.heads, shape.dim, shape.first, shape.window, shape.ahead,
              shape.ratio, shape.topk, shape.packed ? "_packed" : "", shape.padding),
          [=](OpRun& run) {
            const SharedKvAttentionArgs all = SharedKvInputs(run, shape);
            run.ForRows(shape.rows, [&](int64_t begin, int64_t count) {
              SharedKvAttentionArgs args = all;
              args.q = all.q.Rows(begin, count);
              args.window = RowsOf(all.window, begin, count);
              args.window_begin = all.window_begin.Rows(begin, count);
              args.window_end = all.window_end.Rows(begin, count);
              if (shape.ratio > 0) {
                args.entry_index = RowsOf(all.entry_index, begin, count);
              }
              if (shape.topk > 0) {
                args.selected = all.selected.Rows(begin, count);
                args.num_selected = all.num_selected.Rows(begin, count);
              }
              args.out = all.out.Rows(begin, count);
              run.backend().SharedKvAttention(run.stream(), args);
            });
          }};
}

}  // namespace

std::vector<ParityCase> CompressedCases() {
  std::vector<ParityCase> cases;
  for (const CompressShape& shape :
       {CompressShape{0, 8, 4, true, 0}, CompressShape{1, 1, 1, false, 0},
        // The first entry has no tokens before it; every position of a group occurs.
        CompressShape{12, 17, 4, true, 0, 1}, CompressShape{9, 67, 4, true, 5},
        CompressShape{4, 128, 2, false, 6}, CompressShape{3, 33, 1, false, 11},
        CompressShape{3, 150, 128, false, 125, 1}, CompressShape{2, 31, 5, true, 39},
        CompressShape{6, 19, 4, true, 2, 1, 4}, CompressShape{2, 9, 1, false, 5, 1, 1},
        CompressShape{2, 9, 2, true, 0, 1, 2}}) {
    cases.push_back(CompressCase(shape));
  }
  for (const IndexShape& shape :
       {IndexShape{0, 2, 8, 3, 4, 4}, IndexShape{1, 1, 1, 0, 4, 3},
        IndexShape{7, 3, 17, 0, 4, 2}, IndexShape{1, 4, 32, 400, 4, 16},
        IndexShape{5, 3, 33, 211, 2, 9}, IndexShape{2, 5, 16, 9001, 2, 33},
        IndexShape{0, 2, 8, 3, 2, 4, 8, 3}, IndexShape{1, 2, 8, 0, 2, 4, 8, 3},
        IndexShape{1, 3, 17, 97, 1, 5, 8, 1}, IndexShape{5, 3, 19, 171, 2, 6, 4, 5},
        IndexShape{1, 2, 16, 9001, 1, 100, 8, 37},
        IndexShape{3, 2, 16, 9001, 2, 50, 7, 201}, IndexShape{2, 2, 8, 30, 1, 64, 3, 4},
        IndexShape{5, 3, 66, 211, 2, 9, 0, 0, true},
        IndexShape{1, 5, 16, 9001, 2, 33, 0, 0, true},
        IndexShape{3, 2, 34, 9001, 2, 50, 7, 201, true},
        IndexShape{5, 3, 17, 211, 2, 9, 0, 0, false, 2},
        IndexShape{4, 3, 19, 171, 1, 6, 4, 5, false, 2},
        IndexShape{2, 2, 8, 30, 1, 4, 8, 3, true, 2}}) {
    cases.push_back(EntryIndexerCase(shape));
  }
  for (const SharedKvShape& shape :
       {SharedKvShape{0, 2, 8, 3, 4}, SharedKvShape{1, 1, 1, 0, 1},
        SharedKvShape{5, 3, 17, 0, 9}, SharedKvShape{3, 9, 40, 150, 128},
        SharedKvShape{3, 4, 33, 20, 16, 0, 0, 5}, SharedKvShape{6, 5, 24, 1, 8, 4},
        SharedKvShape{2, 12, 48, 301, 31, 3}, SharedKvShape{4, 8, 65, 97, 16, 4, 7},
        SharedKvShape{3, 7, 129, 60, 24, 1, 40}, SharedKvShape{2, 3, 16, 50, 0, 4},
        SharedKvShape{2, 2, 16, 1, 0, 4}, SharedKvShape{2, 6, 33, 4000, 128, 1},
        SharedKvShape{1, 3, 20, 9000, 100, 1},
        SharedKvShape{6, 5, 24, 1, 8, 4, 0, 0, true},
        SharedKvShape{3, 37, 130, 60, 24, 1, 40, 0, true},
        SharedKvShape{1, 3, 50, 9000, 100, 1, 0, 0, true},
        SharedKvShape{5, 3, 17, 20, 9, 4, 0, 0, false, 3},
        SharedKvShape{4, 5, 24, 97, 16, 1, 7, 0, true, 1},
        SharedKvShape{2, 9, 40, 3, 8, 0, 0, 0, false, 2}}) {
    cases.push_back(SharedKvCase(shape));
  }
  return cases;
}

}  // namespace tessera::parity
