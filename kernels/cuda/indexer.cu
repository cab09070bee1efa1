// Scores of the lightning indexer and their selection. A block makes a query: a half warp
// the score of an entry, a chunk of entries at a time, after which the best so far stay
// in shared memory (shortlist.cuh), those of candidate blocks likewise. Any number of
// entries. Bound: memory, 4 D or fewer bytes an entry, read once a query. Exact.
#include "kernels/cuda/cuda_ops.h"
#include "kernels/cuda/primitives/lane_sum.cuh"
#include "kernels/cuda/primitives/paged_rows.cuh"
#include "kernels/cuda/primitives/shortlist.cuh"

namespace tessera::kernels::cuda {
namespace {

constexpr uint32_t kBlock = 256;
constexpr int64_t kScoresAtOnce = kBlock / kLanes;

struct IndexerSelectKernel {
  static constexpr const char* kName = "IndexerSelectKernel";
  DeviceRows<const float> q;  // [t, head]
  DeviceRows<const float> weights;
  DeviceCache keys;
  DevicePages pages;
  int64_t ratio;
  int64_t candidate_block;
  int64_t chunk;     // entries; whole candidate blocks, where there are any
  bool has_queries;  // else all that compete are selected
  bool restricted;
  DeviceRows<const int32_t> candidates;
  DeviceRows<int32_t> selected;
  DeviceRows<int32_t> num_selected;
  bool picks_blocks;
  DeviceRows<int32_t> candidates_out;

  // Score of an entry, in lane 0 of the half warp that makes it; 0 of none, entry -1.
  TESSERA_DEVICE float Score(Thread& thread, int64_t t, int64_t entry) const {
    const uint32_t lane = thread.lane() % kLanes;
    const int64_t row = entry < 0 ? 0 : pages.RowOf(thread, t, entry);
    const int64_t cols = entry < 0 ? 0 : q.cols;
    const int64_t heads = weights.cols;
    float score = 0;
    for (int64_t h = 0; h < heads; ++h) {
      const int64_t begin = q.Begin(t * heads + h);
      float dot = 0;
      for (int64_t i = lane; i < cols; i += kLanes) {
        dot = fmaf(thread.Load(q.span, begin + i), keys.Value(thread, row, i), dot);
      }
      dot = thread.Shuffle(ReduceLanes(thread, dot), thread.lane() - lane);
      if (h % kLanes == lane) {
        score = fmaf(dot < 0 ? 0.0F : dot,
                     thread.Load(weights.span, weights.Begin(t) + h), score);
      }
    }
    return ReduceLanes(thread, score);
  }

  // Entries that may compete, some of which query t does not see.
  TESSERA_DEVICE int64_t NumPlaces(int64_t visible) const {
    return restricted ? candidates.cols * candidate_block : visible;
  }
  // The entry at a place, or -1.
  TESSERA_DEVICE int64_t EntryAt(Thread& thread, int64_t t, int64_t place,
                                 int64_t visible) const {
    int64_t entry = place;
    if (restricted) {
      const int64_t block =
          thread.Load(candidates.span, candidates.Begin(t) + place / candidate_block);
      entry = block < 0 ? -1 : block * candidate_block + place % candidate_block;
    }
    return entry < visible ? entry : -1;
  }

  // Appends the places [first, first + count) to the list, which has `kept`.
  TESSERA_DEVICE void AppendScores(Thread& thread, const Shortlist& list, int64_t t,
                                   int64_t first, int64_t count, int64_t kept,
                                   int64_t visible) const {
    // Where everything is selected, it is whatever its score.
    const bool needs_scores =
        has_queries && (picks_blocks || NumPlaces(visible) > selected.cols);
    for (int64_t at = 0; at < count; at += kScoresAtOnce) {
      // Both halves of a warp take part in its shuffles, the last one with a place again.
      const int64_t mine = at + thread.linear_thread() / kLanes;
      const int64_t place = first + (mine < count ? mine : count - 1);
      const int64_t entry = EntryAt(thread, t, place, visible);
      const float score = needs_scores ? Score(thread, t, entry) : 0.0F;
      if (mine < count && thread.lane() % kLanes == 0) {
        thread.Store(list.keys, kept + mine, OrderKey(score));
        thread.Store(list.ids, kept + mine, static_cast<int32_t>(entry));
      }
    }
  }

  // Appends the blocks of the entries [first, first + count), whose keys lie from `at`
  // on, with the best of each; the block of the newest entry does not compete.
  TESSERA_DEVICE void AppendBlocks(Thread& thread, const Shortlist& entries, int64_t at,
                                   int64_t first, int64_t count, const Shortlist& blocks,
                                   int64_t kept, int64_t newest) const {
    thread.SyncBlock();
    const int64_t here = (count + candidate_block - 1) / candidate_block;
    for (int64_t b = thread.linear_thread(); b < here; b += kBlock) {
      uint32_t best = 0;
      for (int64_t i = b * candidate_block; i < (b + 1) * candidate_block && i < count;
           ++i) {
        const uint32_t key = thread.Load(entries.keys, at + i);
        best = key > best ? key : best;
      }
      const int64_t block = first / candidate_block + b;
      thread.Store(blocks.keys, kept + b, best);
      thread.Store(blocks.ids, kept + b,
                   block == newest ? -1 : static_cast<int32_t>(block));
    }
  }

  // `count` ids to a row of the output, then `last` unless it is below 0, then -1.
  TESSERA_DEVICE void StoreIds(Thread& thread, const Shortlist& list, int64_t count,
                               int64_t last, const DeviceRows<int32_t>& to,
                               int64_t t) const {
    for (int64_t i = thread.linear_thread(); i < to.cols; i += kBlock) {
      const int32_t after = i == count ? static_cast<int32_t>(last) : -1;
      thread.Store(to.span, to.Begin(t) + i,
                   i < count ? thread.Load(list.ids, i) : after);
    }
  }

  TESSERA_DEVICE void operator()(Thread& thread) const {
    const int64_t t = thread.block_idx().x;
    const int64_t position = thread.Load(pages.positions.span, pages.positions.Begin(t));
    const int64_t visible = (position + 1) / ratio;
    const int64_t capacity = selected.cols + chunk;
    const Shortlist list = Shortlist::At(thread, 0, capacity);
    const Shortlist blocks =
        Shortlist::At(thread, static_cast<uint32_t>(Shortlist::Bytes(capacity)),
                      picks_blocks ? candidates_out.cols + chunk : 0);
    const int64_t newest =
        visible > 0 && picks_blocks ? (visible - 1) / candidate_block : -1;
    int64_t kept = 0;
    int64_t kept_blocks = 0;
    for (int64_t first = 0; first < NumPlaces(visible); first += chunk) {
      const int64_t left = NumPlaces(visible) - first;
      const int64_t count = left < chunk ? left : chunk;
      AppendScores(thread, list, t, first, count, kept, visible);
      if (picks_blocks) {
        AppendBlocks(thread, list, kept, first, count, blocks, kept_blocks, newest);
        kept_blocks = blocks.Keep(
            thread, kept_blocks + (count + candidate_block - 1) / candidate_block,
            candidates_out.cols - 1);
      }
      kept = list.Keep(thread, kept + count, selected.cols);
    }
    StoreIds(thread, list, kept, -1, selected, t);
    if (thread.linear_thread() == 0) {
      thread.Store(num_selected.span, num_selected.Begin(t), static_cast<int32_t>(kept));
    }
    if (picks_blocks) {
      StoreIds(thread, blocks, kept_blocks, newest, candidates_out, t);
    }
  }
};

}  // namespace

void IndexerSelect(GpuStream& stream, const IndexerSelectArgs& args) {
  TESSERA_CHECK_EQ(args.selected.dim(1), args.topk);
  TESSERA_CHECK(args.candidates.rank == 0 || args.candidates_out.rank == 0);
  TESSERA_CHECK_LE(args.topk, kMaxSelectedEntries);
  IndexerSelectKernel kernel = {};
  kernel.has_queries = args.q.rank > 0;
  if (kernel.has_queries) {
    TESSERA_CHECK_EQ(args.weights.dim(1), args.q.dim(1));
    TESSERA_CHECK_EQ(args.keys.width(), args.q.dim(2));
    kernel.q = RowsOf<const float>(args.q);
    kernel.weights = RowsOf<const float>(args.weights);
  }
  TESSERA_CHECK(kernel.has_queries || args.candidates_out.rank == 0);
  kernel.keys = CacheOf(args.keys);
  kernel.pages = PagesOf(args.index);
  kernel.ratio = args.ratio;
  kernel.candidate_block = args.candidate_block;
  kernel.chunk = kEntriesAtOnce;
  kernel.selected = RowsOf<int32_t>(args.selected);
  kernel.num_selected = ColumnOf<int32_t>(args.num_selected);
  kernel.restricted = args.candidates.rank > 0;
  kernel.picks_blocks = args.candidates_out.rank > 0;
  if (kernel.restricted || kernel.picks_blocks) {
    TESSERA_CHECK(args.candidate_block >= 1 && args.candidate_block <= kEntriesAtOnce);
    kernel.chunk = kEntriesAtOnce / args.candidate_block * args.candidate_block;
  }
  int64_t shared_bytes = Shortlist::Bytes(args.topk + kernel.chunk);
  if (kernel.restricted) {
    kernel.candidates = RowsOf<const int32_t>(args.candidates);
  }
  if (kernel.picks_blocks) {
    TESSERA_CHECK(args.candidates_out.dim(1) >= 1 &&
                  args.candidates_out.dim(1) <= kMaxSelectedEntries);
    kernel.candidates_out = RowsOf<int32_t>(args.candidates_out);
    shared_bytes += Shortlist::Bytes(kernel.candidates_out.cols + kernel.chunk);
  }
  if (args.selected.dim(0) > 0) {
    Launch(stream,
           {.grid = {static_cast<uint32_t>(args.selected.dim(0))},
            .block = {kBlock},
            .shared_bytes = static_cast<uint32_t>(shared_bytes)},
           kernel);
  }
}

}  // namespace tessera::kernels::cuda
