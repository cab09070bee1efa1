// The ops of the cpu backend without intrinsics, one file per family: linear.cc,
// rounded.cc, rows.cc, quantize.cc, rope.cc, indexer.cc, latent_attention.cc,
// shared_kv_attention.cc, compress.cc, hyper.cc, moe.cc, expert_lists.cc, experts.cc,
// engram.cc. They cut work over threads and blocks and leave the inner loops to a SimdOps
// table. What each op computes: kernel_backend.h.
#ifndef TESSERA_KERNELS_CPU_CPU_OPS_H_
#define TESSERA_KERNELS_CPU_CPU_OPS_H_

#include <algorithm>
#include <cstdint>
#include <limits>
#include <memory>
#include <span>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

#include "kernels/cpu/simd/simd_ops.h"
#include "kernels/cpu/thread_pool.h"
#include "kernels/kernel_backend.h"
#include "kernels/model_shapes.h"
#include "kernels/runtime/host_arena.h"

namespace tessera::kernels::cpu {

// Floats of each scratch array: 256 KiB, so that a panel of decoded weights and a block
// of activations fit a 1 MiB L2 together. Also the longest contraction that an op
// accepts, and the bound of experts, streams times width, and the like; ops check it.
inline constexpr int64_t kScratchFloats = int64_t{1} << 16;
static_assert(kScratchFloats >= kLinearScratchFloats);

// Floats for what experts keep between gate and down, of 174 items at a width of 2048
// with inputs in 8 bits; and for rows of inputs in 8 bits of other products.
inline constexpr int64_t kExpertFloats = int64_t{1} << 20;

// Largest index_topk.
inline constexpr int64_t kMaxTopk = int64_t{1} << 13;

// Floats of unpacked cache rows of a thread: all rows that one query selects. Memory is
// taken as rows are unpacked, so that caches of activations need none.
inline constexpr int64_t kUnpackedFloats = kMaxTopk * kMaxPackedWidth;

// Floats of padding of a pass over rows that are keys and values both.
inline constexpr int64_t kRowPadding = 32;

// Heads that share a pass over rows that are keys and values both. A row is fetched once
// per tile of heads for the scores and once for the sums: over thousands of rows, which
// no cache near the core holds, that is the bound, so that tiles are wide where all
// threads have one, and else narrow. Bits do not depend on it.
inline constexpr int64_t kSharedKvHeads = 16;
inline constexpr int64_t kNarrowSharedKvHeads = 8;
// Rows of one such pass: the scores of a wide tile fit half of the scratch.
inline constexpr int64_t kSharedKvRowsPerPass = 2048;
static_assert(2 * kSharedKvHeads * kSharedKvRowsPerPass <= kScratchFloats);

// Index keys scored between two prunings of the candidates.
inline constexpr int64_t kKeysPerChunk = 4096;
static_assert(kKeysPerChunk + kMaxTopk <= 2 * kMaxTopk);

// Expert groups of a router.
inline constexpr int64_t kMaxGroups = 256;

// kInvalidArgument: a model of these shapes would not fit the sizes above.
absl::Status CheckShapes(const ModelShapes& shapes);

// What every op needs. Owns the threads and all scratch, made once, so that ops allocate
// nothing. One stream at a time uses it.
class CpuContext {
 public:
  struct ThreadScratch {
    float* panel;  // kScratchFloats: decoded weights, scores
    float* rows;   // kScratchFloats: activations
    // 4 * kMaxTopk words: places of cached rows, candidates of a top-k.
    int64_t* offsets;
    float* unpacked;  // kUnpackedFloats: packed rows of a cache as floats
    const float** row_pointers() const {
      return reinterpret_cast<const float**>(offsets);
    }
  };

  // kResourceExhausted, or as ThreadPool::Create. The backend has checked `options`.
  static absl::StatusOr<std::unique_ptr<CpuContext>> Create(
      const SimdOps& simd, const BackendOptions& options);

  const SimdOps& simd() const { return simd_; }
  const ThreadScratch& scratch(int thread) const {
    return scratch_[static_cast<size_t>(thread)];
  }
  // kScratchFloats for values that pass from one parallel loop to the next.
  float* shared() const { return shared_; }
  // kExpertFloats likewise, for experts and for rounded inputs.
  float* expert_items() const { return expert_items_; }
  HostArena& weights() { return weights_; }  // where copies of weights go
  int num_threads() const { return pool_->num_threads(); }
  bool rounds_experts() const { return rounds_experts_; }
  bool rounds_dense() const { return rounds_dense_; }

  // body(begin, end, thread) over [0, count), on as many threads as `work`, an estimate
  // in fused multiply-adds, is worth (BackendOptions::work_per_thread).
  template <typename Body>
  void ParallelFor(int64_t count, int64_t work, const Body& body) {
    pool_->ParallelFor(count, PartsOf(work), body);
  }

  // In pieces of 10 us of weights or more: cores seldom read at one rate.
  template <typename Body>
  void ParallelForShared(int64_t count, int64_t work, const Body& body) {
    constexpr int64_t kPieceWork = 1 << 19;
    const int64_t grain = kPieceWork / (work / (count < 1 ? 1 : count) + 1) + 1;
    pool_->ParallelForShared(count, grain, PartsOf(work), body);
  }

 private:
  int PartsOf(int64_t work) const {
    constexpr int64_t kMost = ThreadPool::kMaxThreads;
    return static_cast<int>(std::min(work / work_per_thread_ + 1, kMost));
  }

  CpuContext(const SimdOps& simd, std::unique_ptr<ThreadPool> pool,
             const BackendOptions& options)
      : simd_(simd),
        rounds_experts_(options.numerics != "f32"),
        rounds_dense_(options.numerics == "w8a8-g32"),
        work_per_thread_(options.work_per_thread),
        pool_(std::move(pool)) {}

  const SimdOps simd_;
  const bool rounds_experts_;
  const bool rounds_dense_;
  const int64_t work_per_thread_;
  std::unique_ptr<ThreadPool> pool_;
  HostArena weights_;
  DeviceBuffer memory_;
  std::vector<ThreadScratch> scratch_;
  float* shared_ = nullptr;
  float* expert_items_ = nullptr;
};

// The plain form of a view for the tables; CHECKs that the format is one of theirs.
WeightRows ToWeightRows(const WeightView& w);
// True if ToWeightRows takes weights of this format.
bool CanRun(DType weight, DType scale);

// Decodes a [1, n] or [m, d] weight row by row into `out`, which holds rows * cols
// floats.
void DecodeSmall(const SimdOps& simd, const WeightView& w, float* out);

// A view of rank 2 or 3 as rows: row i is [i / inner, i % inner].
struct RowList {
  explicit RowList(const TensorView& x)
      : data(x.as<float>()),
        inner(x.rank == 3 ? x.dim(1) : 1),
        count(x.dim(0) * inner),
        length(x.dim(x.rank - 1)),
        outer_stride(x.stride(0)),
        inner_stride(x.rank == 3 ? x.stride(1) : 0) {
    TESSERA_CHECK(x.rank == 2 || x.rank == 3);
  }
  float* row(int64_t i) const {
    return data + i / inner * outer_stride + i % inner * inner_stride;
  }

  float* data;
  int64_t inner;
  int64_t count;
  int64_t length;
  int64_t outer_stride;
  int64_t inner_stride;
};

// The limit of an activation as the tables take it: 0 stands for none.
inline float ActivationLimit(double limit) {
  return limit > 0 ? static_cast<float>(limit) : std::numeric_limits<float>::infinity();
}

// Address of the row of a paged cache that holds `position`; `blocks` is the table of its
// sequence. A position without a block is a bug.
template <typename T>
const T* PagedRow(const TensorView& cache, const int32_t* blocks, int64_t block_size,
                  int64_t position) {
  const int32_t block = blocks[position / block_size];
  TESSERA_CHECK(block >= 0 && block < cache.dim(0));
  return cache.row<T>(block, position % block_size);
}

// A packed row as floats; the bits of kernels/row_format.h.
void UnpackRow(const SimdOps& simd, const RowFormat& format, const uint8_t* row,
               float* values);

// As PagedRow, of a cache of any format: packed values go to `unpacked`.
inline const float* ReadPagedRow(const SimdOps& simd, const CacheView& cache,
                                 const int32_t* blocks, int64_t block_size,
                                 int64_t position, float* unpacked) {
  if (!cache.format.is_packed()) {
    return PagedRow<float>(cache.rows, blocks, block_size, position);
  }
  UnpackRow(simd, cache.format,
            PagedRow<uint8_t>(cache.rows, blocks, block_size, position), unpacked);
  return unpacked;
}

// Block table of the sequence of query row t.
inline const int32_t* BlocksOfRow(const PagedIndex& index, int64_t t) {
  return index.block_tables.row<int32_t>(*index.sequence_of_row.row<int32_t>(t));
}

// ---- linear.cc ----
void Linear(CpuContext& context, TensorView x, const WeightView& w, const KSplit& split,
            TensorView out);
void HeadLinearTransposed(CpuContext& context, TensorView x, const WeightView& w,
                          int64_t head_rows, int64_t row_begin, TensorView out);
void HeadLinear(CpuContext& context, TensorView x, const WeightView& w, int64_t head_rows,
                int64_t row_begin, TensorView out);

// ---- rounded.cc ----
// A copy of `w` in 8 bits; the view to use instead of it.
absl::StatusOr<WeightView> RoundWeight(CpuContext& context, const WeightView& w,
                                       const KSplit& split, DeviceBuffer* memory);
// As Linear and HeadLinear, of rounded weights.
void RoundedLinear(CpuContext& context, TensorView x, const WeightView& w,
                   const KSplit& split, TensorView out);
void RoundedHeadLinear(CpuContext& context, TensorView x, const WeightView& w,
                       int64_t head_rows, int64_t row_begin, TensorView out);

// ---- rows.cc ----
void Embedding(CpuContext& context, const WeightView& table, TensorView ids,
               TensorView out);
void RmsNorm(CpuContext& context, TensorView x, const WeightView& weight, double eps,
             TensorView out);
void LayerNorm(CpuContext& context, TensorView x, const float* weight, const float* bias,
               double eps, TensorView out);
void AddPositionBias(CpuContext& context, TensorView x, const WeightView& bias,
                     TensorView positions);
void Scale(CpuContext& context, TensorView x, double factor);
void SiluMul(CpuContext& context, TensorView gate, TensorView up, double limit,
             TensorView out);
void Add(CpuContext& context, TensorView x, TensorView out);
void Copy(CpuContext& context, TensorView x, TensorView out);
void GatherRows(CpuContext& context, TensorView x, TensorView rows, TensorView out);
void StorePaged(CpuContext& context, TensorView x, TensorView slots,
                const CacheView& cache);

// ---- quantize.cc ----
void FakeQuantizeE4M3(CpuContext& context, TensorView x);
void FakeQuantizeFp4(CpuContext& context, TensorView x, Fp4Scale scale);

// ---- rope.cc ----
void Rope(CpuContext& context, TensorView x, TensorView positions,
          std::span<const float> inv_freq, RopePairing pairing);
void Hadamard(CpuContext& context, TensorView x);

// ---- indexer.cc ----
void IndexerSelect(CpuContext& context, const IndexerSelectArgs& args);

// ---- latent_attention.cc ----
void MlaAttention(CpuContext& context, const MlaAttentionArgs& args);

// ---- rounded_attention.cc ----
// With queries, rows and probabilities in 8 bits (RoundedAttentionTask).
void RoundedMlaAttention(CpuContext& context, const MlaAttentionArgs& args);

// ---- shared_kv_attention.cc ----
void SharedKvAttention(CpuContext& context, const SharedKvAttentionArgs& args);

// ---- compress.cc ----
void Compress(CpuContext& context, const CompressArgs& args);

// ---- hyper.cc ----
void ExpandStreams(CpuContext& context, TensorView x, TensorView out);
void HyperCoefficients(CpuContext& context, const HyperCoefficientsArgs& args);
void HyperCollapse(CpuContext& context, TensorView streams, TensorView pre,
                   TensorView out);
void HyperExpand(CpuContext& context, TensorView y, TensorView post, TensorView mix,
                 TensorView streams);
void HyperHead(CpuContext& context, const HyperCoefficientsArgs& args, TensorView out);

// ---- moe.cc ----
void Route(CpuContext& context, const RouterArgs& args);
void LookupExperts(CpuContext& context, const int64_t* table, TensorView token_ids,
                   TensorView out);
void GroupedExperts(CpuContext& context, const GroupedExpertsArgs& args);
void CombineExperts(CpuContext& context, TensorView y, TensorView row_of_slot,
                    TensorView weights, TensorView out);

// ---- expert_lists.cc ----
void ListExpertItems(const ExpertItemsArgs& args);
void CountExperts(TensorView expert_ids, TensorView counts);
void PackSlots(TensorView row_of_slot, TensorView packed);
void LocateReturns(const LocateReturnsArgs& args);

// ---- engram.cc ----
void DecodeEngramRows(CpuContext& context, TensorView rows, DType format, int64_t width,
                      TensorView out);
void EngramGate(CpuContext& context, const EngramGateArgs& args);
void EngramConv(CpuContext& context, const EngramConvArgs& args);

}  // namespace tessera::kernels::cpu

#endif  // TESSERA_KERNELS_CPU_CPU_OPS_H_
