// OpArgs: what the ops of KernelBackend take beyond a view or two, with the definition of
// the op beside its arguments. Plain structs; views and pointers are borrowed for the
// length of the call.
#ifndef TESSERA_KERNELS_OP_ARGS_H_
#define TESSERA_KERNELS_OP_ARGS_H_

#include <cstdint>
#include <span>

#include "kernels/cache_view.h"
#include "kernels/group_scale.h"
#include "kernels/tensor_view.h"
#include "kernels/weight_view.h"

namespace tessera::kernels {

// Which part of a contraction over K_total inputs a call holds. The contraction is cut
// into 8 leaves, leaf i covering inputs floor(i K/8) .. floor((i+1) K/8) - 1; each leaf
// is summed with lanes that start anew, and the leaves are added as a binary tree
// ((0+1)+(2+3))+((4+5)+(6+7)). A rank holds `num_leaves` (a power of two) from
// `first_leaf` (a multiple of it) and computes that subtree. num_leaves == 0: the
// contraction is not cut, one run of lanes over all inputs.
struct KSplit {
  static constexpr int kLeaves = 8;
  int64_t total = 0;  // K of the whole contraction
  int first_leaf = 0;
  int num_leaves = 0;

  static KSplit Whole() { return {}; }
  static int64_t LeafBegin(int64_t total, int leaf) { return leaf * total / kLeaves; }
};

enum class RopePairing { kInterleaved, kHalfSplit };

// Positions of the cached tokens: token p of sequence s lies in block tables.row(s)[p /
// block_size], at p % block_size. `sequence_of_row` names the sequence of each query row.
struct PagedIndex {
  TensorView block_tables;     // [num_sequences, max_blocks] i32
  TensorView sequence_of_row;  // [T] i32: row of block_tables
  TensorView positions;        // [T] i32: position of the query; it sees 0..position, and
                               // none at -1 (padding)
  int64_t block_size = 0;
};

// Entries of `ratio` tokens each that a query at `position` sees: the complete ones.
constexpr int64_t VisibleEntries(int64_t position, int64_t ratio) {
  return (position + 1) / ratio;
}

// Scores of the lightning indexer and its selection (model.md 5.3, 6.5, 9.2):
//   score(t, s) = sum_h relu(q[t,h] . key[s]) * w[t,h],
//   s < VisibleEntries(positions[t], ratio)
// The topk highest are selected; equal scores (+0 equals -0) go to the lower entry. All
// that compete are selected where they are no more than topk.
// Two levels: `candidates_out` takes the n blocks of `candidate_block` entries with the
// highest best scores, ties to the lower block, the block of the newest visible entry
// always among them; where `candidates` names blocks, their entries alone compete. One op
// does not do both. A query at position -1 selects none and names no candidates.
// Per query and competing entry J (2 D + 2) FLOPs and 4 D bytes; none where everything is
// selected. A caller who knows that no more than topk compete for any query may leave q
// and weights out (rank 0), without candidates_out: then no score is asked for.
struct IndexerSelectArgs {
  TensorView q;        // [T, J, D]
  TensorView weights;  // [T, J], already scaled
  CacheView keys;      // [num_blocks, block_size, D]
  PagedIndex index;    // its block_size counts entries
  int64_t ratio = 1;   // tokens per entry
  int64_t topk = 0;
  TensorView selected;             // out [T, topk] i32: entries in rising order, then -1
  TensorView num_selected;         // out [T] i32
  int64_t candidate_block = 0;     // entries per block; 0: one level
  TensorView candidates = {};      // [T, n] i32: rising blocks, then -1; or rank 0: all
  TensorView candidates_out = {};  // out [T, n] i32: rising blocks, then -1; rank 0: none
};

// Absorbed MLA over the selected positions, in rising order, or over all that the query
// sees, 0..positions[t], where `selected` is a view of rank 0:
//   a = (q_latent . latent_s + q_rope . k_rope_s) * scale; o = softmax(a) latent
// softmax: subtract the maximum, exponentiate, divide the weighted sum by the sum of
// exponentials. A row that selects nothing (padding) gets zeros.
struct MlaAttentionArgs {
  TensorView q_latent;  // [T, H, c]
  TensorView q_rope;    // [T, H, r]
  CacheView rows;       // [num_blocks, block_size, c + r]: latent, then rope key
  PagedIndex index;
  TensorView selected;      // [T, topk] i32, or rank 0: everything visible
  TensorView num_selected;  // [T] i32, or rank 0 with it
  double scale = 1;
  TensorView out;  // [T, H, c]
};

// Pooled entries of compressed attention (model.md 6.4, 9.2). The token at position p
// completes an entry if (p + 1) % ratio == 0; its row of out is then, for each channel,
//   m = max_i g_i;  out = sum_i e^(g_i - m) v_i / sum_i e^(g_i - m)
// over the slots i in rising position: tokens p - ratio + 1 .. p; with overlap channels
// [0, D) of tokens p - 2 ratio + 1 .. p - ratio, where p >= 2 ratio - 1, and then
// channels [D, 2 D) of the former. All other rows are zeros, that of position -1 too. Per
// entry of n slots: 5 n D FLOPs, n D exponentials, 8 n D bytes; else 4 D bytes a row.
struct CompressArgs {
  TensorView values;     // paged [num_blocks, block_size, C], C = D, or 2 D with overlap
  TensorView gates;      // the same; with their position bias
  PagedIndex index;      // of the blocks that hold them
  int64_t ratio = 1;     // tokens per entry
  bool overlap = false;  // an entry looks at the tokens of the one before as well
  TensorView out;        // [T, D]
};

// Attention over a window of rows and over compressed entries, each row key and value at
// once and shared by all heads, with a sink per head (model.md 6.3):
//   a_s = (q . row_s) * scale;  m = max_s a_s
//   o = sum_s e^(a_s - m) row_s / (sum_s e^(a_s - m) + e^(sink - m))
// over the window [window_begin, window_end) in rising position, then the visible entries
// (all, or the selected ones) in rising order. The maximum is of the scores alone. A
// query without any row gets zeros. Per query, head and row 4 D FLOPs; a tile of heads
// reads 4 D bytes of each row twice.
struct SharedKvAttentionArgs {
  TensorView q;             // [T, H, D]
  CacheView window_rows;    // [num_tail_blocks, block_size, D]
  PagedIndex window;        // the tail block table
  TensorView window_begin;  // [T] i32
  TensorView window_end;    // [T] i32
  CacheView entries;        // [num_blocks, block_size / ratio, D]; or none
  PagedIndex entry_index;   // its block_size counts entries
  int64_t ratio = 1;    // tokens per entry: VisibleEntries(positions[t], ratio) of them
  TensorView selected;  // [T, topk] i32, or rank 0: all that are visible
  TensorView num_selected;       // [T] i32, or rank 0 with it
  const float* sinks = nullptr;  // [H]
  double scale = 1;
  TensorView out;  // [T, H, D]
};

// mHC coefficients of a sublayer (model.md 6.2): from the streams h [T, M, d].
struct HyperCoefficientsArgs {
  TensorView streams;            // [T, M, d]
  WeightView fn;                 // [M(M+2), M d] f32
  const float* base = nullptr;   // [M(M+2)]
  const float* scale = nullptr;  // [3]
  double norm_eps = 0;
  double eps = 0;
  int64_t sinkhorn_iters = 0;
  TensorView pre;   // out [T, M]
  TensorView post;  // out [T, M]
  TensorView mix;   // out [T, M, M], A[j, k]
};

// What a router makes of a logit z: sigmoid(z), or sqrt(ln(1 + e^z)) with z itself for
// the logarithm above 20 (model.md 6.7).
enum class RouterScore { kSigmoid, kSqrtSoftplus };

// Router (model.md 5.4, 6.7, 14.3): s = score(x Wg); picks = top-k of s + bias (with
// groups: first the top groups by the sum of their two best), ties to the lower index,
// slots by falling biased score, or `fixed_ids` as they are; weight = s / (sum of picked
// s + 1e-20) * scaling (normalised), or s * scaling.
struct RouterArgs {
  TensorView x;     // [T, d]
  WeightView gate;  // [E, d]
  RouterScore score = RouterScore::kSigmoid;
  TensorView fixed_ids = {};    // [T, k] i32, each below E; or rank 0: picked by score
  const float* bias = nullptr;  // [E], or null: zeros
  int64_t num_groups = 1;
  int64_t top_groups = 1;
  bool normalize = true;
  double scaling = 1;
  // [T] i32, or rank 0: no row is padding. At position -1 all ids are -1, all weights 0.
  TensorView positions = {};
  TensorView expert_ids;  // out [T, k] i32
  TensorView weights;     // out [T, k]
};

// The items of a rank's experts, for GroupedExperts and CombineExperts: an item is a slot
// [t, j] whose expert has a local index; items come in the order (local index, t, j). An
// id outside of 0..E-1 is no expert; one that is not -1 is a fault as well:
//   fault[0] = max(fault[0], 1 + t k + j)
// No op clears `fault`, so that the end of a step sees what any of its calls found. What
// lies beyond the last item stays as it is. Up to 20 bytes a slot.
struct ExpertItemsArgs {
  TensorView expert_ids;         // [T, k] i32
  TensorView local_of_expert;    // [E] i32: 0..L-1, or -1: another rank's
  TensorView weights = {};       // [T, k], or rank 0: items have none
  TensorView item_offsets;       // out [L + 1] i32: where each local expert's items begin
  TensorView row_of_item;        // out [T k] i32: t
  TensorView row_of_slot;        // out [T, k] i32: the slot's item, -1 where it has none
  TensorView item_weights = {};  // out [T k]; rank 0 with `weights`
  TensorView fault;              // in and out [1] i32
};

// Where a token's rows come back if each rank returns m of them for each of T tokens, the
// i-th being that of the i-th slot whose expert it has:
//   row_of_slot[t, j] = (owner T + t) m + (slots before j of t with the same owner)
// -1 where the id is no expert. Faults as those of ExpertItemsArgs; a slot beyond the
// m-th of an owner is -1 and a fault, too. Up to 4 (k + 3) bytes a slot.
struct LocateReturnsArgs {
  TensorView expert_ids;       // [T, k] i32
  TensorView owner_of_expert;  // [E] i32: a rank
  int64_t places = 0;          // m
  TensorView row_of_slot;      // out [T, k] i32
  TensorView fault;            // in and out [1] i32
};

// One routed expert; each is whole on its rank.
struct ExpertWeights {
  WeightView gate;  // [m, d]
  WeightView up;    // [m, d]
  WeightView down;  // [d, m]
};

// Grouped experts: items sorted by expert; item i takes row row_of_item[i] of x.
//   out[i] = down( item_weights[i] * (silu(gate x) * (up x)) )
// with the activations limited as in SiluMul. `row_of_item`, `item_weights` and `out` may
// have more rows than the last offset names items: those of `out` keep what they hold, so
// that a caller who does not know the number gives a bound.
struct GroupedExpertsArgs {
  TensorView x;             // [num_rows, d]; or as Fp8RowFormat (fp8_products.h) says
  TensorView row_of_item;   // [num_items] i32
  TensorView item_offsets;  // [num_experts + 1] i32: items of expert e are
                            // offsets[e]..offsets[e+1]-1
  std::span<const ExpertWeights> experts;
  double swiglu_limit = 0;       // 0: none
  TensorView item_weights = {};  // [num_items], or rank 0: ones (model.md 6.7: before W2)
  TensorView out;                // [num_items, d]
};

enum class EngramGateSign { kCopysign, kSign };  // contracts v41 and demo (engram.md 15)

// Gate and add of Engram (model.md 14.5). kv [T, (M+1) d] = M keys, then the value.
// v41: h_j += gate_j value. demo: u_j = gate_j value goes to `gated` instead, h is not
// touched.
struct EngramGateArgs {
  TensorView streams;   // [T, M, d], in place for v41
  TensorView kv;        // [T, (M+1) d]
  WeightView q_weight;  // [M, d]
  WeightView k_weight;  // [M, d]
  double eps = 0;
  EngramGateSign sign = EngramGateSign::kCopysign;
  TensorView gate;   // out [T, M]
  TensorView gated;  // demo: out [T, M, d]; v41: empty (rank 0)
};

// Short convolution of the demo contract over u (model.md 14.5):
//   z_j = RMS(u_j; eps) * norm_j, written to the paged cache at this token's position;
//   conv(t, ch) = sum_a kernel[ch, a] * z[t - (3 - a) N, ch], zero before the sequence;
//   h_j += u_j + silu(conv)
// A row at position -1 is not written and looks back at nothing: h_j += u_j.
struct EngramConvArgs {
  TensorView gated;    // u [T, M, d]
  TensorView streams;  // [T, M, d], in place
  WeightView kernel;   // [M d, 4]
  WeightView norm;     // [M, d]
  double eps = 1e-5;
  int64_t dilation = 0;  // N
  TensorView cache;      // paged z [num_blocks, block_size, M d]
  PagedIndex index;
};

}  // namespace tessera::kernels

#endif  // TESSERA_KERNELS_OP_ARGS_H_
