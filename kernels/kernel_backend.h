// KernelBackend: the closed list of ops of the forward pass. `reference` defines each op with plain
// loops (float32, or float64 to check a model against its oracle); `cpu` is vectorised and threaded;
// `cuda` follows. tests/parity runs every op on every backend against `reference`.
//
// Contract of every op
//   - Row independence: output row t depends on input row t (and, for attention, on the cache entries
//     that it names) alone, never on T or on the neighbours. Each output element has one fixed order
//     of summation, whatever the tile shape, the row count, the thread count or the instruction set.
//     Sums of float products over an inner dimension use 16 lanes: element i goes to lane i mod 16 by
//     fused multiply-add in rising i, then lanes are added as ((l, l+8), (l, l+4), (l, l+2), (l, l+1)):
//     8 sums l + (l+8), 4 sums of those at distance 4, then 2, then 1.
//   - Activations are float32 (`activation_dtype()`; float64 only on reference). Indices are int32.
//   - T may be 0. Inputs and outputs do not overlap unless an op says that it works in place.
//   - Ops allocate nothing, do not fail and do not block the host for other ranks. A shape that breaks
//     a stated rule is a bug (TESSERA_CHECK).
// Ops are enqueued on a Stream and run in order.
#ifndef TESSERA_KERNELS_KERNEL_BACKEND_H_
#define TESSERA_KERNELS_KERNEL_BACKEND_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

#include "kernels/runtime/device_buffer.h"
#include "kernels/runtime/stream.h"
#include "kernels/tensor_view.h"
#include "kernels/weight_view.h"

namespace tessera::kernels {

// Which part of a contraction over K_total inputs a call holds. The contraction is cut into 8 leaves,
// leaf i covering inputs floor(i K/8) .. floor((i+1) K/8) - 1; each leaf is summed with lanes that
// start anew, and the leaves are added as a binary tree ((0+1)+(2+3))+((4+5)+(6+7)). A rank holds
// `num_leaves` (a power of two) from `first_leaf` (a multiple of it) and computes that subtree.
// num_leaves == 0: the contraction is not cut, one run of lanes over all inputs.
struct KSplit {
  static constexpr int kLeaves = 8;
  int64_t total = 0;  // K of the whole contraction
  int first_leaf = 0;
  int num_leaves = 0;

  static KSplit Whole() { return {}; }
  static int64_t LeafBegin(int64_t total, int leaf) { return leaf * total / kLeaves; }
};

enum class RopePairing { kInterleaved, kHalfSplit };

// Positions of the cached tokens: token p of sequence s lies in block tables.row(s)[p / block_size],
// at p % block_size. `sequence_of_row` names the sequence of each query row.
struct PagedIndex {
  TensorView block_tables;     // [num_sequences, max_blocks] i32
  TensorView sequence_of_row;  // [T] i32: row of block_tables
  TensorView positions;        // [T] i32: position of the query; it sees 0..position
  int64_t block_size = 0;
};

// Scores of the lightning indexer and its selection (DeepSeek-V3.2, model.md 5.3):
//   score(t, s) = sum_h relu(q[t,h] . key[s]) * w[t,h],  s = 0..positions[t]
struct IndexerSelectArgs {
  TensorView q;        // [T, J, D]
  TensorView weights;  // [T, J], already scaled
  TensorView keys;     // paged cache [num_blocks, block_size, D]
  PagedIndex index;
  int64_t topk = 0;
  TensorView selected;   // out [T, topk] i32: positions in rising order, then -1
  TensorView num_selected;  // out [T] i32
};

// Absorbed MLA over the selected positions, in rising order:
//   a = (q_latent . latent_s + q_rope . k_rope_s) * scale; o = softmax(a) latent
// softmax: subtract the maximum, exponentiate, divide the weighted sum by the sum of exponentials.
struct MlaAttentionArgs {
  TensorView q_latent;  // [T, H, c]
  TensorView q_rope;    // [T, H, r]
  TensorView latent;    // paged cache [num_blocks, block_size, c]
  TensorView k_rope;    // paged cache [num_blocks, block_size, r]
  PagedIndex index;
  TensorView selected;      // [T, topk] i32
  TensorView num_selected;  // [T] i32
  double scale = 1;
  TensorView out;  // [T, H, c]
};

// mHC coefficients of a sublayer (model.md 6.2): from the streams h [T, M, d].
struct HyperCoefficientsArgs {
  TensorView streams;  // [T, M, d]
  WeightView fn;       // [M(M+2), M d] f32
  const float* base = nullptr;   // [M(M+2)]
  const float* scale = nullptr;  // [3]
  double norm_eps = 0;
  double eps = 0;
  int64_t sinkhorn_iters = 0;
  TensorView pre;   // out [T, M]
  TensorView post;  // out [T, M]
  TensorView mix;   // out [T, M, M], A[j, k]
};

// Router (model.md 5.4, 14.3): s = sigmoid(x Wg); picks = top-k of s + bias (with groups: first the
// top groups by the sum of their two best), ties to the lower index, slots by falling biased score;
// weight = s / (sum of picked s + 1e-20) * scaling (normalised), or s * scaling.
struct RouterArgs {
  TensorView x;      // [T, d]
  WeightView gate;   // [E, d]
  const float* bias = nullptr;  // [E]
  int64_t num_groups = 1;
  int64_t top_groups = 1;
  bool normalize = true;
  double scaling = 1;
  TensorView expert_ids;  // out [T, k] i32
  TensorView weights;     // out [T, k]
};

// One routed expert; each is whole on its rank.
struct ExpertWeights {
  WeightView gate;  // [m, d]
  WeightView up;    // [m, d]
  WeightView down;  // [d, m]
};

// Grouped experts: items sorted by expert; item i takes row row_of_item[i] of x.
//   out[i] = down( silu(gate x) * (up x) )
struct GroupedExpertsArgs {
  TensorView x;             // [num_rows, d]
  TensorView row_of_item;   // [num_items] i32
  TensorView item_offsets;  // [num_experts + 1] i32: items of expert e are offsets[e]..offsets[e+1]-1
  std::span<const ExpertWeights> experts;
  TensorView out;  // [num_items, d]
};

enum class EngramGateSign { kCopysign, kSign };  // contracts v41 and demo (engram.md 15)

// Gate and add of Engram (model.md 14.5). kv [T, (M+1) d] = M keys, then the value.
// v41: h_j += gate_j value. demo: u_j = gate_j value goes to `gated` instead, h is not touched.
struct EngramGateArgs {
  TensorView streams;  // [T, M, d], in place for v41
  TensorView kv;       // [T, (M+1) d]
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

class KernelBackend {
 public:
  virtual ~KernelBackend() = default;

  // "reference", "cpu", …
  virtual std::string_view name() const = 0;
  // Names the arithmetic, e.g. "cpu/f32": equal ids give equal bits (design, shard invariance).
  virtual std::string_view numerics_id() const = 0;
  virtual DType activation_dtype() const = 0;
  // The instruction set in use, e.g. "avx512"; for logs and bench headers.
  virtual std::string_view isa() const = 0;

  // kUnimplemented with the reason if weights of this format cannot be run.
  virtual absl::Status Supports(DType weight, DType scale) const = 0;

  // Zeroed memory, 64-byte aligned at least. kResourceExhausted. Start-up only.
  virtual absl::StatusOr<DeviceBuffer> Allocate(size_t bytes) = 0;
  virtual absl::StatusOr<std::unique_ptr<Stream>> CreateStream() = 0;

  // Between host memory and the device; `host` must stay alive until the stream is synchronised.
  virtual void Upload(Stream& stream, const void* host, TensorView device) = 0;
  virtual void Download(Stream& stream, TensorView device, void* host) = 0;

  // ---- linear algebra ----

  // out[t, o] = sum_i x[t, i] w[o, i] over the leaves of `split` that x's columns hold.
  // x [T, K_local], w [N, K_local], out [T, N].
  virtual void Linear(Stream& stream, TensorView x, const WeightView& w, const KSplit& split,
                      TensorView out) = 0;
  // Per head h: out[t, h, :] = x[t, h, :] W_h, contraction over the ROWS of W_h (absorbs W_uk).
  // Rows of head h: w rows [h * head_rows + row_begin, + n). x [T, H, n], out [T, H, cols].
  // Sums run over the n rows in rising order with one accumulator per output element.
  virtual void HeadLinearTransposed(Stream& stream, TensorView x, const WeightView& w,
                                    int64_t head_rows, int64_t row_begin, TensorView out) = 0;
  // Per head h: out[t, h, o] = sum_i x[t, h, i] w[h * head_rows + row_begin + o, i].
  // x [T, H, K], out [T, H, n].
  virtual void HeadLinear(Stream& stream, TensorView x, const WeightView& w, int64_t head_rows,
                          int64_t row_begin, TensorView out) = 0;

  // ---- rows ----

  // out[t] = table[ids[t]], decoded. ids [T] i32, out [T, d].
  virtual void Embedding(Stream& stream, const WeightView& table, TensorView ids,
                         TensorView out) = 0;
  // out = x * rsqrt(mean(x^2) + eps) * weight, over the last dimension. x [T, d] or [T, M, d];
  // weight [1, d]. May work in place.
  virtual void RmsNorm(Stream& stream, TensorView x, const WeightView& weight, double eps,
                       TensorView out) = 0;
  // (x - mean) * rsqrt(var + eps) * weight + bias; x [T, D]. May work in place.
  virtual void LayerNorm(Stream& stream, TensorView x, const float* weight, const float* bias,
                         double eps, TensorView out) = 0;
  // In place on x [T, heads, >= r]: the first r values of the last dimension, at positions[t] (i32).
  // cos and sin are of the float32 product position * inv_freq[i], i < r/2.
  virtual void Rope(Stream& stream, TensorView x, TensorView positions,
                    std::span<const float> inv_freq, RopePairing pairing) = 0;
  // In place on x [rows…, D]: orthonormal Walsh-Hadamard in natural order, D a power of two.
  virtual void Hadamard(Stream& stream, TensorView x) = 0;
  // x *= factor, in place.
  virtual void Scale(Stream& stream, TensorView x, double factor) = 0;
  // out = silu(gate) * up; all [T, m].
  virtual void SiluMul(Stream& stream, TensorView gate, TensorView up, TensorView out) = 0;
  // out += x; same shapes.
  virtual void Add(Stream& stream, TensorView x, TensorView out) = 0;
  // out[t] = x[t], same shapes, any strides.
  virtual void Copy(Stream& stream, TensorView x, TensorView out) = 0;
  // out[i] = x[rows[i]]; rows [n] i32.
  virtual void GatherRows(Stream& stream, TensorView x, TensorView rows, TensorView out) = 0;

  // ---- paged caches ----

  // cache[slot / block_size, slot % block_size, :] = x[t], slot = slots[t]; x [T, w], slots [T] i32.
  virtual void StorePaged(Stream& stream, TensorView x, TensorView slots, TensorView cache) = 0;
  virtual void IndexerSelect(Stream& stream, const IndexerSelectArgs& args) = 0;
  virtual void MlaAttention(Stream& stream, const MlaAttentionArgs& args) = 0;

  // ---- residual streams ----

  // out[t, j] = x[t] for every stream j; x [T, d], out [T, M, d].
  virtual void ExpandStreams(Stream& stream, TensorView x, TensorView out) = 0;
  virtual void HyperCoefficients(Stream& stream, const HyperCoefficientsArgs& args) = 0;
  // out[t] = sum_j pre[t, j] h[t, j], j rising; out [T, d].
  virtual void HyperCollapse(Stream& stream, TensorView streams, TensorView pre,
                             TensorView out) = 0;
  // h[t, k] = post[t, k] y[t] + sum_j mix[t, j, k] h[t, j], in place.
  virtual void HyperExpand(Stream& stream, TensorView y, TensorView post, TensorView mix,
                           TensorView streams) = 0;
  // p_j = sigmoid((fn f)_j r scale + base_j) + eps; out[t] = sum_j p_j h_j. fn [M, M d].
  virtual void HyperHead(Stream& stream, const HyperCoefficientsArgs& args, TensorView out) = 0;

  // ---- mixture of experts ----

  virtual void Route(Stream& stream, const RouterArgs& args) = 0;
  virtual void GroupedExperts(Stream& stream, const GroupedExpertsArgs& args) = 0;
  // out[t] = sum over slots j, rising, of weights[t, j] * y[row_of_slot[t, j]]; y [n, d],
  // row_of_slot and weights [T, k], out [T, d].
  virtual void CombineExperts(Stream& stream, TensorView y, TensorView row_of_slot,
                              TensorView weights, TensorView out) = 0;

  // ---- Engram ----

  // Packed rows to values: `rows` u8 [T, C * row_bytes], a row = W values e4m3 then W/32 E8M0 scale
  // bytes (value * 2^(byte-127), rounded to bf16), or W bf16 values. out [T, C * W].
  virtual void DecodeEngramRows(Stream& stream, TensorView rows, DType format, int64_t width,
                                TensorView out) = 0;
  virtual void EngramGate(Stream& stream, const EngramGateArgs& args) = 0;
  virtual void EngramConv(Stream& stream, const EngramConvArgs& args) = 0;
};

struct BackendOptions {
  std::string_view name = "cpu";     // reference | cpu
  DType dtype = DType::kF32;         // kF64: reference only
  std::string_view cpu_isa = "auto";  // auto | scalar | avx2 | avx512 | amx
  int num_threads = 1;               // of this rank
  bool pin_threads = false;
};

// kInvalidArgument: an unknown name, or an instruction set that this machine lacks.
absl::StatusOr<std::unique_ptr<KernelBackend>> CreateBackend(const BackendOptions& options);

}  // namespace tessera::kernels

#endif  // TESSERA_KERNELS_KERNEL_BACKEND_H_
