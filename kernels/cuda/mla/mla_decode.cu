// MLA decode on the tensor cores. A block makes 64 heads of a token over up to 1024 cache
// rows, in tiles of 64, by two warpgroups. The first multiplies queries and keys, 64 x 64
// over 576, keeps each head's largest score and total weight, and leaves the weights as
// BF16 where the tile's rope keys were. Then each multiplies weights and its half of the
// latent values, 64 x 256 over 64. The second, which waits for weights anyway, brings the
// rows of each tile into one of two stages: by bulk copies (BulkRows), or converted from
// FP8 (PackedRows).
//
// A tile is its own value matrix: rows as keys have their inputs together (Major::kK), as
// values their columns (kMN), so it is copied once and never turned.
//
// Shared memory: mla_decode_config.h. Registers: 128 sums of a thread, 32 scores,
// some 40. Bound: HBM up to 64 heads, tensor cores and softmax beyond (design note 0010).
// Rounded: products and sums to float32 by the tensor cores, weights to BF16.
#include <cmath>
#include <cstdint>
#include <limits>
#include <string_view>

#include "common/status.h"
#include "common/status_macros.h"
#include "kernels/cuda/mla/mla_decode.h"
#include "kernels/cuda/mla/mla_decode_layout.cuh"
#include "kernels/cuda/mla/mla_decode_rows.cuh"
#include "kernels/cuda/mla/mla_decode_softmax.cuh"
#include "kernels/cuda/mla/mla_packed_rows.cuh"
#include "kernels/cuda/primitives/device_tensor.cuh"
#include "kernels/cuda/primitives/matrix_descriptor.cuh"

namespace tessera::kernels::cuda {
namespace mla {
namespace {

template <typename Rows>
struct MlaDecodeKernel {
  static constexpr const char* kName = "MlaDecodeKernel";
  static constexpr uint32_t kMaxThreads = kMlaThreads;

  GpuTileMap queries;  // rows of bytes, token by token
  Rows rows;
  RowCounts counts;
  uint32_t heads;
  MlaDecodeConfig config;
  float scale;                // times log2 e: weights are powers of 2
  DeviceRows<float> out;      // [t, head]
  GlobalSpan<float> sums;     // [t, head, split, 512]
  GlobalSpan<float> weights;  // [t, head, split, 2]: largest score, total

  TESSERA_DEVICE void CopyQueries(Thread& thread, const Part& part) const {
    const SharedSpan<uint64_t> barriers = Barriers(thread);
    const auto first = static_cast<int32_t>(part.t * heads + part.first_head);
    thread.ArriveExpecting(barriers, kQueries, part.heads * kWidthBytes);
    for (uint32_t row = 0; row < part.heads; row += config.query_box_rows) {
      for (uint32_t chunk = 0; chunk < kChunks; ++chunk) {
        thread.CopyTile(queries, static_cast<int32_t>(chunk * kLineBytes),
                        first + static_cast<int32_t>(row),
                        Bytes(thread, QueryChunk(chunk) + row * kLineBytes,
                              config.query_box_rows * kLineBytes),
                        barriers, kQueries);
      }
    }
  }

  // ---- the first consumer: scores and weights ----

  TESSERA_DEVICE static void MultiplyKeys(Thread& thread, uint32_t stage,
                                          float (&scores)[kScores]) {
    thread.BeginProducts(scores);
    TESSERA_UNROLL
    for (uint32_t chunk = 0; chunk < kChunks; ++chunk) {
      const uint64_t a = SwizzledTile(Address(thread, QueryChunk(chunk)));
      const uint64_t b = SwizzledTile(Address(thread, Chunk(stage, chunk)));
      TESSERA_UNROLL
      for (uint32_t i = 0; i < kLineBytes; i += kProductBytes) {
        thread.template MultiplyBF16<Major::kK>(scores, Advanced(a, i), Advanced(b, i),
                                                chunk + i > 0);
      }
    }
    thread.CommitProducts();
    thread.template WaitProducts<0>(scores);
  }

  // Values behind the last row become zeros: a weight of zero would not undo a NaN there.
  TESSERA_DEVICE static void ClearValues(Thread& thread, uint32_t stage, uint32_t count) {
    constexpr uint32_t kLineWords = kLineBytes / 4;
    const SharedSpan<uint32_t> values =
        Words(thread, Chunk(stage, 0), kLatentChunks * kChunkBytes);
    for (uint32_t row = count; row < kMlaTileRows; ++row) {
      for (uint32_t i = thread.linear_thread(); i < kLatentChunks * kLineWords;
           i += kConsumerThreads) {
        const uint32_t line = i / kLineWords * (kChunkBytes / 4) + row * kLineWords;
        thread.Store(values, line + i % kLineWords, 0);
      }
    }
  }

  TESSERA_DEVICE void Weigh(Thread& thread, const Part& part, uint32_t tile, uint32_t row,
                            Softmax& softmax) const {
    const SharedSpan<uint64_t> barriers = Barriers(thread);
    const uint32_t stage = tile % kMlaStages;
    const uint32_t count = part.RowsOfTile(tile);
    float scores[kScores];  // the first product sets them
    MultiplyKeys(thread, stage, scores);
    if (thread.lane() == 0) {
      thread.ArriveBarrier(barriers, kScored);
    }
    float shrinks[2];
    uint32_t pairs[kScores / 2];
    FindLargest(thread, scale, count, scores, softmax, shrinks);
    FindWeights(thread, scale, scores, shrinks, softmax, pairs);
    // Other warps may still read the rope keys and, as keys, the values.
    thread.WaitBarrier(barriers, kScored, tile & 1U);
    StoreWeights(thread, stage, row, shrinks, pairs);
    if (!Rows::kEndsInZeros && count < kMlaTileRows) {
      ClearValues(thread, stage, count);
    }
    if (tile + 1 == part.tiles()) {
      StoreTotals(thread, row, softmax);
    }
    thread.FenceProxyAsync();
    thread.SyncWarp();
    if (thread.lane() == 0) {
      thread.ArriveBarrier(barriers, kWeighed + stage);
    }
  }

  // ---- both consumers ----

  TESSERA_DEVICE static void MultiplyValues(Thread& thread, uint32_t stage,
                                            uint32_t consumer, float (&sums)[kSums]) {
    const uint64_t a = SwizzledTile(Address(thread, Chunk(stage, kLatentChunks)));
    const uint64_t b = SwizzledTileByInputs(
        Address(thread, Chunk(stage, consumer * kLatentChunks / 2)), kChunkBytes);
    thread.BeginProducts(sums);
    TESSERA_UNROLL
    for (uint32_t i = 0; i < kMlaTileRows / kProductRows; ++i) {
      thread.template MultiplyBF16<Major::kMN>(sums, Advanced(a, i * kProductBytes),
                                               Advanced(b, i * kProductRows * kLineBytes),
                                               true);
    }
    thread.CommitProducts();
    thread.template WaitProducts<0>(sums);
  }

  // The sums of a split, not yet divided by its totals.
  TESSERA_DEVICE void Consume(Thread& thread, const Part& part, uint32_t consumer,
                              uint32_t row, Softmax& softmax,
                              float (&result)[kSums]) const {
    const SharedSpan<uint64_t> barriers = Barriers(thread);
    if (consumer == 1) {
      if (thread.linear_thread() == kConsumerThreads) {
        CopyQueries(thread, part);
      }
      rows.Fill(thread, part, 0);
    }
    thread.WaitBarrier(barriers, kQueries, 0);
    for (uint32_t tile = 0; tile < part.tiles(); ++tile) {
      const uint32_t stage = tile % kMlaStages;
      const uint32_t parity = tile / kMlaStages & 1U;
      if (consumer == 1 && tile + 1 < part.tiles()) {
        rows.Fill(thread, part, tile + 1);
      }
      thread.WaitBarrier(barriers, kFull + stage, parity);
      if (consumer == 0) {
        Weigh(thread, part, tile, row, softmax);
      }
      thread.WaitBarrier(barriers, kWeighed + stage, parity);
      const uint32_t of_row = stage * kMlaTileHeads + row;
      const float shrinks[2] = {thread.Load(Shrinks(thread), of_row),
                                thread.Load(Shrinks(thread), of_row + 8)};
      TESSERA_UNROLL
      for (uint32_t i = 0; i < kSums; ++i) {
        result[i] *= shrinks[FragmentHalf(i)];
      }
      MultiplyValues(thread, stage, consumer, result);
      thread.SyncWarp();
      if (thread.lane() == 0) {
        thread.ArriveBarrier(barriers, kEmpty + stage);
      }
    }
  }

  // Where the only split of a token ends its result, else its partial.
  TESSERA_DEVICE void StoreResult(Thread& thread, const Part& part, uint32_t consumer,
                                  uint32_t row, const Softmax& softmax,
                                  const float (&result)[kSums]) const {
    const bool whole = part.visible <= kMlaSplitRows;
    TESSERA_UNROLL
    for (uint32_t half = 0; half < 2; ++half) {
      const uint32_t head = row + 8 * half;
      if (head >= part.heads) {
        continue;
      }
      const int64_t query = part.t * heads + part.first_head + head;
      const int64_t partial = query * config.splits + part.split;
      const float total = thread.Load(Totals(thread), head);
      const float factor = whole ? 1.0F / total : 1.0F;
      const GlobalSpan<float> to = whole ? out.span : sums;
      const int64_t begin = (whole ? out.Begin(query) : partial * kMlaLatent) +
                            consumer * kHalf + 2 * (thread.lane() % 4);
      TESSERA_UNROLL
      for (uint32_t i = 2 * half; i < kSums; i += 4) {
        thread.StoreVector(
            to, begin + FragmentColumn(i),
            Vector<float, 2>{{result[i] * factor, result[i + 1] * factor}});
      }
      if (!whole && consumer == 0 && thread.lane() % 4 == 0) {
        thread.StoreVector(weights, 2 * partial,
                           Vector<float, 2>{{softmax.largest[half], total}});
      }
    }
  }

  // ---- the block ----

  // Of padding, zeros; of a token that sees more rows than the launch has blocks for,
  // NaNs.
  TESSERA_DEVICE void Fill(Thread& thread, const Part& part) const {
    const float value = part.visible > 0 ? NAN : 0.0F;
    for (uint32_t i = thread.linear_thread(); i < part.heads * kMlaLatent;
         i += kMaxThreads) {
      const int64_t query = part.t * heads + part.first_head + i / kMlaLatent;
      thread.Store(out.span, out.Begin(query) + i % kMlaLatent, value);
    }
  }

  TESSERA_DEVICE Part PartOfBlock(Thread& thread) const {
    Part part;
    part.t = thread.block_idx().x / config.head_tiles;
    part.first_head = thread.block_idx().x % config.head_tiles * kMlaTileHeads;
    part.heads =
        heads - part.first_head < kMlaTileHeads ? heads - part.first_head : kMlaTileHeads;
    part.split = thread.block_idx().y;
    part.visible = counts.Of(thread, part.t);
    part.begin = part.split * kMlaSplitRows;
    part.end = part.begin + kMlaSplitRows < part.visible ? part.begin + kMlaSplitRows
                                                         : part.visible;
    return part;
  }

  // Queries that no head has are zeros; barriers; all threads know of both.
  TESSERA_DEVICE void Prepare(Thread& thread, const Part& part) const {
    constexpr uint32_t kChunkWords = kChunkBytes / 4;
    const uint32_t used = part.heads * kLineBytes / 4;  // words of a chunk
    const SharedSpan<uint32_t> words = Words(thread, QueryChunk(0), kMlaTileBytes);
    for (uint32_t i = thread.linear_thread(); i < kChunks * kChunkWords;
         i += kMaxThreads) {
      if (i % kChunkWords >= used) {
        thread.Store(words, i, 0);
      }
    }
    if (thread.linear_thread() == 0) {
      const SharedSpan<uint64_t> barriers = Barriers(thread);
      thread.InitBarrier(barriers, kQueries, 1);
      thread.InitBarrier(barriers, kScored, kConsumerWarps);
      for (uint32_t stage = 0; stage < kMlaStages; ++stage) {
        thread.InitBarrier(barriers, kFull + stage, Rows::kFullArrivals);
        thread.InitBarrier(barriers, kWeighed + stage, kConsumerWarps);
        thread.InitBarrier(barriers, kEmpty + stage, 2 * kConsumerWarps);
      }
    }
    thread.FenceProxyAsync();
    thread.SyncBlock();
  }

  TESSERA_DEVICE void operator()(Thread& thread) const {
    const Part part = PartOfBlock(thread);
    if (part.visible <= 0 || part.visible > config.splits * kMlaSplitRows) {
      if (part.split == 0) {
        Fill(thread, part);
      }
      return;
    }
    if (part.begin >= part.end) {
      return;
    }
    rows.Prepare(thread, part);
    Prepare(thread, part);
    const uint32_t consumer = thread.linear_thread() / kConsumerThreads;
    const uint32_t warp = thread.linear_thread() / kWarpSize % kConsumerWarps;
    const uint32_t row = 16 * warp + thread.lane() / 4;
    Softmax softmax;
    float result[kSums] = {};
    Consume(thread, part, consumer, row, softmax, result);
    StoreResult(thread, part, consumer, row, softmax, result);
  }
};

}  // namespace
}  // namespace mla

namespace {

// A block merges the splits of a token and head, in rising order:
//   out = sum_i 2^(m_i - m) sums_i / sum_i 2^(m_i - m) total_i
struct MergeSplitsKernel {
  static constexpr const char* kName = "MergeSplitsKernel";
  static constexpr int kWide = 4;
  static constexpr uint32_t kMaxThreads = static_cast<uint32_t>(kMlaLatent) / kWide;

  mla::RowCounts counts;
  uint32_t heads;
  uint32_t splits;
  float scale;
  GlobalSpan<const float> sums;
  GlobalSpan<const float> weights;
  DeviceRows<float> out;

  TESSERA_DEVICE void operator()(Thread& thread) const {
    const int64_t query = thread.block_idx().x;
    const int64_t visible = counts.Of(thread, query / heads);
    const int64_t count = (visible + kMlaSplitRows - 1) / kMlaSplitRows;
    if (count < 2 || count > splits) {
      return;
    }
    const int64_t first = query * splits;
    float largest = -INFINITY;
    for (int64_t i = first; i < first + count; ++i) {
      largest = fmaxf(largest, thread.Load(weights, 2 * i));
    }
    const uint32_t column = thread.linear_thread() * kWide;
    float total = 0;
    float result[kWide] = {};
    for (int64_t i = first; i < first + count; ++i) {
      const auto weight = thread.template LoadVector<2>(weights, 2 * i);
      const float factor = exp2f((weight.values[0] - largest) * scale);
      total = fmaf(factor, weight.values[1], total);
      const auto part = thread.template LoadVector<kWide>(sums, i * kMlaLatent + column);
      TESSERA_UNROLL
      for (int j = 0; j < kWide; ++j) {
        result[j] = fmaf(factor, part.values[j], result[j]);
      }
    }
    const float factor = 1.0F / total;
    TESSERA_UNROLL
    for (int j = 0; j < kWide; ++j) {
      thread.Store(out.span, out.Begin(query) + column + j, result[j] * factor);
    }
  }
};

// A thread makes two values of a row.
struct PackMlaQueriesKernel {
  static constexpr const char* kName = "PackMlaQueriesKernel";
  static constexpr uint32_t kMaxThreads = 256;
  static constexpr int64_t kPairs = kMlaWidth / 2;

  DeviceRows<const float> latent;  // [t, head]
  DeviceRows<const float> rope;
  DeviceRows<uint32_t> q;  // words

  TESSERA_DEVICE void operator()(Thread& thread) const {
    const int64_t stride = int64_t{thread.grid_dim().x} * kMaxThreads;
    for (int64_t i = GlobalIndex(thread); i < latent.rows * kPairs; i += stride) {
      const int64_t row = i / kPairs;
      const int64_t column = i % kPairs * 2;
      const bool is_rope = column >= kMlaLatent;
      const DeviceRows<const float>& from = is_rope ? rope : latent;
      const int64_t at = from.Begin(row) + (is_rope ? column - kMlaLatent : column);
      thread.Store(
          q.span, q.Begin(row) + i % kPairs,
          thread.PackBF16(thread.Load(from.span, at), thread.Load(from.span, at + 1)));
    }
  }
};

absl::StatusOr<GpuTileMap> MapOf(const TensorView& view, uint32_t box_rows) {
  return GpuTileMap::Create({.data = view.data,
                             .element_bytes = 1,
                             .rows = static_cast<uint64_t>(view.dim(0) * view.dim(1)),
                             .cols = mla::kWidthBytes,
                             .row_bytes = static_cast<uint64_t>(view.stride(1)) * 2,
                             .box_rows = box_rows,
                             .box_cols = mla::kLineBytes,
                             .swizzle = Swizzle::k128});
}

absl::Status CheckIntegers(std::string_view what, const TensorView& view, int rank,
                           int64_t tokens) {
  if (view.rank == rank && view.dtype == DType::kI32 && view.dim(0) == tokens) {
    return absl::OkStatus();
  }
  return InvalidArgumentF("mla decode: {} of rank {} and type {} for {} tokens", what,
                          view.rank, model::DTypeName(view.dtype), tokens);
}

// What belongs to each token is there for each, and so is the workspace.
absl::Status CheckLengths(const MlaDecodeArgs& args, const MlaDecodeShape& shape) {
  if (shape.tokens == 0) {
    return absl::OkStatus();
  }
  TESSERA_RETURN_IF_ERROR(
      CheckIntegers("positions", args.index.positions, 1, shape.tokens));
  TESSERA_RETURN_IF_ERROR(
      CheckIntegers("sequences", args.index.sequence_of_row, 1, shape.tokens));
  if (shape.selects) {
    TESSERA_RETURN_IF_ERROR(CheckIntegers("selections", args.selected, 2, shape.tokens));
    TESSERA_RETURN_IF_ERROR(
        CheckIntegers("numbers of selections", args.num_selected, 1, shape.tokens));
  }
  const int64_t needed = ChooseMlaDecode(shape).workspace_bytes;
  if (args.workspace_bytes < needed || (needed > 0 && args.workspace == nullptr)) {
    return InvalidArgumentF("mla decode: a workspace of {} bytes, expected {}",
                            args.workspace_bytes, needed);
  }
  return absl::OkStatus();
}

absl::Status CheckArgs(const MlaDecodeArgs& args) {
  const MlaDecodeShape shape = ShapeOf(args);
  const MlaDecodeRefusal refusal = CheckMlaDecode(shape);
  if (refusal != MlaDecodeRefusal::kNone) {
    return StatusF(absl::StatusCode::kFailedPrecondition,
                   "mla decode: refused for its {}: {} tokens, {} heads, {} + {} values, "
                   "pages of {}, up to {} rows",
                   MlaDecodeRefusalName(refusal), shape.tokens, shape.heads, shape.latent,
                   shape.rope, shape.block_size, shape.rows_max);
  }
  const bool packed = shape.rows.is_packed();
  TESSERA_CHECK(args.q.dtype == DType::kBF16);
  TESSERA_CHECK(packed || args.cache.rows.dtype == DType::kBF16);
  TESSERA_CHECK_EQ(args.index.block_size, args.cache.block_size());
  TESSERA_CHECK(args.out.dtype == DType::kF32 && args.out.dim(0) == shape.tokens &&
                args.out.dim(1) == shape.heads);
  TESSERA_CHECK(args.scale > 0);
  for (const TensorView& view : {args.q, args.cache.rows}) {
    const int64_t bytes = view.stride(1) * (view.dtype == DType::kBF16 ? 2 : 1);
    if (view.stride(0) != view.dim(1) * view.stride(1) || bytes % 16 != 0 ||
        reinterpret_cast<uintptr_t>(view.data) % 16 != 0) {
      return InvalidArgumentF(
          "mla decode: [{}, {}] rows that are {} and {} values apart, at {} mod 16",
          view.dim(0), view.dim(1), view.stride(0), view.stride(1),
          reinterpret_cast<uintptr_t>(view.data) % 16);
    }
  }
  if (reinterpret_cast<uintptr_t>(args.out.data) % 8 != 0 ||
      args.out.stride(0) % 2 != 0 || args.out.stride(1) % 2 != 0 ||
      reinterpret_cast<uintptr_t>(args.workspace) % 16 != 0) {
    return InvalidArgumentF(
        "mla decode: a result at {} mod 8 with strides {} and {}, a workspace at {} mod "
        "16",
        reinterpret_cast<uintptr_t>(args.out.data) % 8, args.out.stride(0),
        args.out.stride(1), reinterpret_cast<uintptr_t>(args.workspace) % 16);
  }
  return CheckLengths(args, shape);
}

mla::RowCounts CountsOf(const MlaDecodeArgs& args) {
  return args.selected.rank > 0
             ? mla::RowCounts{ColumnOf<const int32_t>(args.num_selected), 0}
             : mla::RowCounts{ColumnOf<const int32_t>(args.index.positions), 1};
}

mla::PackedRows PackedRowsOf(const MlaDecodeArgs& args) {
  const TensorView& view = args.cache.rows;
  const int64_t bytes = (view.dim(0) * view.dim(1) - 1) * view.stride(1) + view.dim(2);
  TESSERA_CHECK_LE(view.dim(0) * view.dim(1),
                   int64_t{std::numeric_limits<int32_t>::max()});
  mla::PackedRows rows;
  rows.words = {static_cast<const uint32_t*>(view.data), bytes / 4};
  rows.row_words = view.stride(1) / 4;
  rows.pages = PagesOf(args.index);
  rows.selects = args.selected.rank > 0;
  if (rows.selects) {
    rows.selected = RowsOf<const int32_t>(args.selected);
  }
  return rows;
}

template <typename Rows>
absl::Status LaunchDecode(GpuStream& stream, const MlaDecodeArgs& args,
                          const MlaDecodeConfig& config, const Rows& rows) {
  constexpr double kLog2E = 0x1.71547652b82fep+0;
  const int64_t queries = args.q.dim(0) * args.q.dim(1);
  const int64_t partials = config.splits > 1 ? queries * config.splits : 0;
  mla::MlaDecodeKernel<Rows> kernel;
  TESSERA_ASSIGN_OR_RETURN(kernel.queries, MapOf(args.q, config.query_box_rows));
  kernel.rows = rows;
  kernel.counts = CountsOf(args);
  kernel.heads = static_cast<uint32_t>(args.q.dim(1));
  kernel.config = config;
  kernel.scale = static_cast<float>(args.scale * kLog2E);
  kernel.out = RowsOf<float>(args.out);
  kernel.sums = {static_cast<float*>(args.workspace), partials * kMlaLatent};
  kernel.weights = {kernel.sums.data + kernel.sums.size, partials * 2};
  Launch(
      stream,
      {.grid = {static_cast<uint32_t>(args.q.dim(0)) * config.head_tiles, config.splits},
       .block = {kMlaThreads},
       .shared_bytes = Rows::kSharedBytes},
      kernel);
  if (partials > 0) {
    const MergeSplitsKernel merge = {kernel.counts, kernel.heads, config.splits,
                                     kernel.scale,  kernel.sums,  kernel.weights,
                                     kernel.out};
    Launch(stream,
           {.grid = {static_cast<uint32_t>(queries)},
            .block = {MergeSplitsKernel::kMaxThreads}},
           merge);
  }
  return absl::OkStatus();
}

}  // namespace

MlaDecodeShape ShapeOf(const MlaDecodeArgs& args) {
  const int64_t latent = args.out.dim(2);
  return {.tokens = args.q.dim(0),
          .heads = args.q.dim(1),
          .latent = latent,
          .rope = args.q.dim(2) - latent,
          .rows = args.cache.format,
          .selects = args.selected.rank > 0,
          .block_size = args.index.block_size,
          .rows_max = args.rows_max};
}

void PackMlaQueries(GpuStream& stream, TensorView q_latent, TensorView q_rope,
                    TensorView q) {
  TESSERA_CHECK(q_latent.dim(2) == kMlaLatent && q_rope.dim(2) == kMlaRope &&
                q.dim(2) == kMlaWidth && q.dtype == DType::kBF16);
  for (const TensorView& from : {q_latent, q_rope}) {
    TESSERA_CHECK(from.dim(0) == q.dim(0) && from.dim(1) == q.dim(1));
  }
  TESSERA_CHECK(reinterpret_cast<uintptr_t>(q.data) % 4 == 0 && q.stride(0) % 2 == 0 &&
                q.stride(1) % 2 == 0);
  TensorView words = q;  // two values each
  words.dtype = kDTypeOf<uint32_t>;
  words.shape[2] /= 2;
  words.strides[0] /= 2;
  words.strides[1] /= 2;
  const PackMlaQueriesKernel kernel = {RowsOf<const float>(q_latent),
                                       RowsOf<const float>(q_rope),
                                       RowsOf<uint32_t>(words)};
  const int64_t pairs = kernel.latent.rows * PackMlaQueriesKernel::kPairs;
  if (pairs > 0) {
    Launch(stream, EachValueConfig(pairs, PackMlaQueriesKernel::kMaxThreads), kernel);
  }
}

absl::Status MlaDecode(GpuStream& stream, const MlaDecodeArgs& args) {
  TESSERA_RETURN_IF_ERROR(CheckArgs(args));
  if (args.q.dim(0) == 0) {
    return absl::OkStatus();
  }
  const MlaDecodeConfig config = ChooseMlaDecode(ShapeOf(args));
  if (args.cache.format.is_packed()) {
    return LaunchDecode(stream, args, config, PackedRowsOf(args));
  }
  mla::BulkRows rows;
  TESSERA_ASSIGN_OR_RETURN(rows.map, MapOf(args.cache.rows, config.cache_box_rows));
  rows.box_rows = config.cache_box_rows;
  rows.pages = PagesOf(args.index);
  return LaunchDecode(stream, args, config, rows);
}

}  // namespace tessera::kernels::cuda
