// The ops of KernelBackend on a GPU stream, as plain functions, one file per family,
// named below. What each op computes, and in which order it sums, is stated in
// kernels/kernel_backend.h. All views name device memory. Float32 activations.
//
// These are the portable ops: complete and correct on any GPU, one thread or half warp
// per output. cuda_backend.cc makes a KernelBackend of them.
#ifndef TESSERA_KERNELS_CUDA_CUDA_OPS_H_
#define TESSERA_KERNELS_CUDA_CUDA_OPS_H_

#include <cstdint>
#include <span>

#include "absl/status/status.h"

#include "kernels/cuda/primitives/device.cuh"
#include "kernels/model_shapes.h"
#include "kernels/op_args.h"
#include "kernels/tensor_view.h"
#include "kernels/weight_view.h"

namespace tessera::kernels::cuda {

class ExpertTable;  // expert_table.h
struct ExpertPart;

// ---- cuda_shape_limits.cc ----
// As KernelBackend's.
absl::Status CheckShapes(const ModelShapes& shapes);
bool CanRun(DType weight, DType scale);

// ---- attention.cu ----
void MlaAttention(GpuStream& stream, const MlaAttentionArgs& args);
void SharedKvAttention(GpuStream& stream, const SharedKvAttentionArgs& args);

// ---- compress.cu ----
void Compress(GpuStream& stream, const CompressArgs& args);

// ---- engram.cu ----
void DecodeEngramRows(GpuStream& stream, TensorView rows, DType format, int64_t width,
                      TensorView out);
void EngramGate(GpuStream& stream, const EngramGateArgs& args);
void EngramConv(GpuStream& stream, const EngramConvArgs& args);

// ---- exchange_slots.cu ----
void PackSlots(GpuStream& stream, TensorView row_of_slot, TensorView packed);
void LocateReturns(GpuStream& stream, const LocateReturnsArgs& args);

// ---- expert_lists.cu ----
// At most kMaxRoutedExperts experts, of the model as of the rank.
void ListExpertItems(GpuStream& stream, const ExpertItemsArgs& args);
void CountExperts(GpuStream& stream, TensorView expert_ids, TensorView counts);

// ---- grouped_experts.cu ----
// Rows of an expert's gate: its activations lie in shared memory.
inline constexpr int64_t kMaxExpertWidth = 48 * 1024;
// `table` is that of args.experts. A launch for each format of the experts, one for a
// model's. `out`, `row_of_item` and `item_weights` may have more rows than the last
// offset names: `out` keeps what the others hold.
void GroupedExperts(GpuStream& stream, const ExpertTable& table,
                    const GroupedExpertsArgs& args);
// The items of one part's experts.
void GroupedExperts(GpuStream& stream, const ExpertPart& part,
                    const GroupedExpertsArgs& args);

// ---- hyper.cu ----
// At most 8 streams.
void HyperCoefficients(GpuStream& stream, const HyperCoefficientsArgs& args);
void HyperHead(GpuStream& stream, const HyperCoefficientsArgs& args, TensorView out);

// ---- indexer.cu ----
// The best so far lie in shared memory: of entries as of candidate blocks.
inline constexpr int64_t kMaxSelectedEntries = 8192;
// Scores made between two selections; entries of a candidate block at most.
inline constexpr int64_t kEntriesAtOnce = 1024;
void IndexerSelect(GpuStream& stream, const IndexerSelectArgs& args);

// ---- linear.cu ----
void Linear(GpuStream& stream, TensorView x, const WeightView& w, const KSplit& split,
            TensorView out);
void HeadLinear(GpuStream& stream, TensorView x, const WeightView& w, int64_t head_rows,
                int64_t row_begin, TensorView out);
void HeadLinearTransposed(GpuStream& stream, TensorView x, const WeightView& w,
                          int64_t head_rows, int64_t row_begin, TensorView out);

// ---- probe.cu ----
// No ops: what they time is a limit of the device.
// sum[0] += every word, modulo 2^32. words [n] i32, n % 4 == 0; sum [1] i32.
void ReadAll(GpuStream& stream, TensorView words, int64_t max_blocks, TensorView sum);
// Returns how many multiply-adds that is. out [n] f32, a value a thread.
double MultiplyAdds(GpuStream& stream, int64_t rounds, TensorView out);

// ---- quantize.cu ----
void FakeQuantizeE4M3(GpuStream& stream, TensorView x);
void FakeQuantizeFp4(GpuStream& stream, TensorView x, Fp4Scale scale);
void StorePaged(GpuStream& stream, TensorView x, TensorView slots,
                const CacheView& cache);

// ---- rope.cu ----
// Pairs that an argument holds: models have 32. 512 bytes of the 4096 of a launch.
inline constexpr int64_t kMaxRopePairs = 128;
void Rope(GpuStream& stream, TensorView x, TensorView positions,
          std::span<const float> inv_freq, RopePairing pairing);
void Hadamard(GpuStream& stream, TensorView x);

// ---- route.cu ----
// Their scores lie in shared memory.
inline constexpr int64_t kMaxRoutedExperts = 4096;
void Route(GpuStream& stream, const RouterArgs& args);
void LookupExperts(GpuStream& stream, const int64_t* table, TensorView token_ids,
                   TensorView out);

// ---- rows.cu ----
void Embedding(GpuStream& stream, const WeightView& table, TensorView ids,
               TensorView out);
void RmsNorm(GpuStream& stream, TensorView x, const WeightView& weight, double eps,
             TensorView out);
void LayerNorm(GpuStream& stream, TensorView x, const float* weight, const float* bias,
               double eps, TensorView out);
void AddPositionBias(GpuStream& stream, TensorView x, const WeightView& bias,
                     TensorView positions);
void Scale(GpuStream& stream, TensorView x, double factor);
void SiluMul(GpuStream& stream, TensorView gate, TensorView up, double limit,
             TensorView out);
void Add(GpuStream& stream, TensorView x, TensorView out);
void Copy(GpuStream& stream, TensorView x, TensorView out);

// ---- streams.cu ----
void ExpandStreams(GpuStream& stream, TensorView x, TensorView out);
void HyperCollapse(GpuStream& stream, TensorView streams, TensorView pre, TensorView out);
void HyperExpand(GpuStream& stream, TensorView y, TensorView post, TensorView mix,
                 TensorView streams);
void GatherRows(GpuStream& stream, TensorView x, TensorView rows, TensorView out);
void CombineExperts(GpuStream& stream, TensorView y, TensorView row_of_slot,
                    TensorView weights, TensorView out);

}  // namespace tessera::kernels::cuda

#endif  // TESSERA_KERNELS_CUDA_CUDA_OPS_H_
