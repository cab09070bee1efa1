// The ops of KernelBackend as plain functions over activations of type T (float or
// double), one file per family: linear.cc, rows.cc, quantize.cc, rope.cc, indexer.cc,
// attention.cc, compress.cc, hyper.cc, moe.cc, expert_lists.cc, engram.cc. What each op
// computes is stated in kernel_backend.h; these loops are its definition.
//
// Unlike the fast backends they allocate scratch. Functions of this header are
// instantiated for float and double in their own files.
#ifndef TESSERA_KERNELS_REFERENCE_REFERENCE_OPS_H_
#define TESSERA_KERNELS_REFERENCE_REFERENCE_OPS_H_

#include <cstdint>
#include <span>

#include "kernels/kernel_backend.h"

namespace tessera::kernels::reference {

// ---- linear.cc ----
template <typename T>
void Linear(TensorView x, const WeightView& w, const KSplit& split, TensorView out);
template <typename T>
void HeadLinearTransposed(TensorView x, const WeightView& w, int64_t head_rows,
                          int64_t row_begin, TensorView out);
template <typename T>
void HeadLinear(TensorView x, const WeightView& w, int64_t head_rows, int64_t row_begin,
                TensorView out);

// ---- fp8_products.cc ----
// Linear of numerics fp8-g128 (kernels/fp8_products.h): IsFp8Product(w, split), or FP4
// weights of an expert, whole. x may be rows of Fp8RowFormat.
void Fp8Linear(TensorView x, const WeightView& w, const KSplit& split, TensorView out);

// ---- rows.cc ----
template <typename T>
void Embedding(const WeightView& table, TensorView ids, TensorView out);
template <typename T>
void RmsNorm(TensorView x, const WeightView& weight, double eps, TensorView out);
template <typename T>
void LayerNorm(TensorView x, const float* weight, const float* bias, double eps,
               TensorView out);
template <typename T>
void AddPositionBias(TensorView x, const WeightView& bias, TensorView positions);
template <typename T>
void Scale(TensorView x, double factor);
template <typename T>
void SiluMul(TensorView gate, TensorView up, double limit, TensorView out);
template <typename T>
void Add(TensorView x, TensorView out);
// Of int32_t, too.
template <typename T>
void Copy(TensorView x, TensorView out);
// Of uint8_t, too.
template <typename T>
void GatherRows(TensorView x, TensorView rows, TensorView out);
template <typename T>
void StorePaged(TensorView x, TensorView slots, const CacheView& cache);

// ---- quantize.cc ----
template <typename T>
void FakeQuantizeE4M3(TensorView x);
template <typename T>
void FakeQuantizeFp4(TensorView x, Fp4Scale scale);

// ---- rope.cc ----
template <typename T>
void Rope(TensorView x, TensorView positions, std::span<const float> inv_freq,
          RopePairing pairing);
template <typename T>
void Hadamard(TensorView x);

// ---- indexer.cc ----
template <typename T>
void IndexerSelect(const IndexerSelectArgs& args);

// ---- attention.cc ----
template <typename T>
void MlaAttention(const MlaAttentionArgs& args);
template <typename T>
void SharedKvAttention(const SharedKvAttentionArgs& args);

// ---- compress.cc ----
template <typename T>
void Compress(const CompressArgs& args);

// ---- hyper.cc ----
template <typename T>
void ExpandStreams(TensorView x, TensorView out);
template <typename T>
void HyperCoefficients(const HyperCoefficientsArgs& args);
template <typename T>
void HyperCollapse(TensorView streams, TensorView pre, TensorView out);
template <typename T>
void HyperExpand(TensorView y, TensorView post, TensorView mix, TensorView streams);
template <typename T>
void HyperHead(const HyperCoefficientsArgs& args, TensorView out);

// ---- moe.cc ----
template <typename T>
void Route(const RouterArgs& args);
// The same for every T.
void LookupExperts(const int64_t* table, TensorView token_ids, TensorView out);
template <typename T>
void GroupedExperts(const GroupedExpertsArgs& args);
// Of numerics fp8-g128.
void Fp8GroupedExperts(const GroupedExpertsArgs& args);
template <typename T>
void CombineExperts(TensorView y, TensorView row_of_slot, TensorView weights,
                    TensorView out);

// ---- expert_lists.cc ----
template <typename T>
void ListExpertItems(const ExpertItemsArgs& args);
// The same for every T.
void CountExperts(TensorView expert_ids, TensorView counts);
void PackSlots(TensorView row_of_slot, TensorView packed);
void LocateReturns(const LocateReturnsArgs& args);

// ---- engram.cc ----
template <typename T>
void DecodeEngramRows(TensorView rows, DType format, int64_t width, TensorView out);
template <typename T>
void EngramGate(const EngramGateArgs& args);
template <typename T>
void EngramConv(const EngramConvArgs& args);

}  // namespace tessera::kernels::reference

#endif  // TESSERA_KERNELS_REFERENCE_REFERENCE_OPS_H_
