// The table of one instruction set: the last include of each simd_<isa>.cc, after its
// vector and the name of its namespace.
#ifndef TESSERA_KERNELS_CPU_SIMD_SIMD_TABLE_H_
#define TESSERA_KERNELS_CPU_SIMD_SIMD_TABLE_H_

// The order is that of use: each of these needs the ones before it.
// clang-format off
#include "kernels/cpu/simd/simd_math.h"
#include "kernels/cpu/simd/simd_quantize.h"
#include "kernels/cpu/simd/simd_decode.h"
#include "kernels/cpu/simd/simd_linear.h"
#include "kernels/cpu/simd/simd_many_rows.h"
#include "kernels/cpu/simd/simd_stored_rows.h"
#include "kernels/cpu/simd/simd_stored_groups.h"
#include "kernels/cpu/simd/simd_stored_dot.h"
#include "kernels/cpu/simd/simd_few_rows.h"
#include "kernels/cpu/simd/simd_int8.h"
#include "kernels/cpu/simd/simd_int8_many.h"
#include "kernels/cpu/simd/rounded/simd_rounding.h"
#include "kernels/cpu/simd/rounded/simd_rounded.h"
#include "kernels/cpu/simd/attention/simd_attention.h"
#include "kernels/cpu/simd/attention/simd_latent_attention.h"
#include "kernels/cpu/simd/attention/simd_attention_rounding.h"
#include "kernels/cpu/simd/attention/simd_rounded_attention.h"
#include "kernels/cpu/simd/attention/simd_compressed.h"
// clang-format on

namespace tessera::kernels::cpu::TESSERA_SIMD_ISA {

const SimdOps kOps = {
    .decode_row = DecodeRow,
    .linear = Linear,
    .quantize_int8 = QuantizeInt8,
    .int8_linear = Int8Linear,
    .rounded_value_bytes = kRoundedValueBytes,
    .round_row = RoundRow,
    .round_tile = RoundTile,
    .rounded_linear = RoundedLinear,
    .linear_transposed = LinearTransposed,
    .index_scores = IndexScores,
    .attention = Attention,
    .round_cache_rows = RoundCacheRows,
    .round_queries = RoundQueries,
    .rounded_attention = RoundedAttention,
    .merge_attention = MergeAttention,
    .finish_attention = FinishAttention,
    .shared_kv_attention = SharedKvAttention,
    .pool = Pool,
    .hyper_expand = HyperExpand,
    .hadamard = Hadamard,
    .dot = Dot,
    .dot3 = Dot3,
    .rms_norm = RmsNorm,
    .layer_norm = LayerNorm,
    .exp = ExpRow,
    .sigmoid = SigmoidRow,
    .silu = SiluRow,
    .silu_mul = SiluMul,
    .largest_magnitude = LargestMagnitude,
    .round_e4m3 = RoundE4M3,
    .round_fp4 = RoundFp4,
    .add_scaled = AddScaled,
    .add_product = AddProduct,
    .weighted_sum = WeightedSum,
};

}  // namespace tessera::kernels::cpu::TESSERA_SIMD_ISA

#endif  // TESSERA_KERNELS_CPU_SIMD_SIMD_TABLE_H_
