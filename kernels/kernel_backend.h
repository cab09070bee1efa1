// KernelBackend: the closed list of ops of the forward pass. `reference` defines each op
// with plain loops (float32, or float64 to check a model against its oracle); `cpu` is
// vectorised and threaded; `cuda` is a GPU, or simulates one. tests/parity runs every op
// on every one against `reference`.
//
// Contract of every op
// - Row independence: output row t depends on input row t (and, for attention, on the
//   cache entries that it names) alone, never on T or on the neighbours. Each output
//   element has one fixed order of summation, whatever the tile shape, the row count,
//   the thread count or the instruction set. Sums of float products over an inner
//   dimension use 16 lanes (MlaAttention on cpu: 1): element i goes to lane i mod 16 by
//   fused multiply-add in rising i, then lanes are added as ((l, l+8), (l, l+4),
//   (l, l+2), (l, l+1)): 8 sums l + (l+8), 4 sums at distance 4, then 2, then 1.
// - Activations are float32 (`activation_dtype()`; float64 only on reference). Indices
//   are int32.
// - T may be 0. Inputs and outputs do not overlap unless an op says that it works in
//   place.
// - A step may have padding rows, which no sequence owns: token id 0, position -1, slots
//   -1, an empty window, sequence row 0, expert ids -1. Each op says what it makes of
//   position -1 where that is not what its formula says. Nothing of a padding row is read
//   by another row, and it reads and writes no page.
// - Ops allocate nothing (reference may), do not fail and do not block the host for
//   other ranks. A shape that breaks a stated rule is a bug (TESSERA_CHECK).
// - NaN passes through, and counts as the largest value in a selection, so that damage
//   is seen and not skipped.
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

#include "kernels/model_shapes.h"
#include "kernels/op_args.h"
#include "kernels/runtime/device_buffer.h"
#include "kernels/runtime/stream.h"
#include "kernels/tensor_view.h"
#include "kernels/weight_view.h"

namespace tessera::kernels {

class KernelBackend {
 public:
  virtual ~KernelBackend() = default;

  // "reference", "cpu", …
  virtual std::string_view name() const = 0;
  // Names the arithmetic, e.g. "cpu/f32": equal ids give equal bits (design, shard
  // invariance).
  virtual std::string_view numerics_id() const = 0;
  virtual DType activation_dtype() const = 0;
  // The instruction set in use, e.g. "avx512"; for logs and bench headers.
  virtual std::string_view isa() const = 0;

  // kUnimplemented with the reason if weights of this format cannot be run.
  virtual absl::Status Supports(DType weight, DType scale) const = 0;
  // kInvalidArgument, with what is needed and what there is, if a model of these shapes
  // is too large for an op. To be asked before its weights are loaded.
  virtual absl::Status CheckShapes(const ModelShapes& shapes) const = 0;

  // `w` as Linear with this split, or HeadLinear, are to be given it: with numerics that
  // round dense weights (WeightView) marked so, with the backend's own copy in `memory`
  // if it keeps one; otherwise as it is. The bytes behind `w` must stay. Start-up only;
  // kResourceExhausted.
  virtual absl::StatusOr<WeightView> Prepare(const WeightView& w, const KSplit& /*split*/,
                                             DeviceBuffer* /*memory*/) {
    return w;
  }

  // Zeroed, 64-byte aligned. kResourceExhausted. Start-up only (see backend_traits.h).
  virtual absl::StatusOr<DeviceBuffer> Allocate(size_t bytes) = 0;
  virtual absl::StatusOr<std::unique_ptr<Stream>> CreateStream() = 0;

  // Between host memory and the device; `host` must stay alive until the stream is
  // synchronised.
  virtual void Upload(Stream& stream, const void* host, TensorView device) = 0;
  virtual void Download(Stream& stream, TensorView device, void* host) = 0;

  // ---- linear algebra ----

  // out[t, o] = sum_i x[t, i] w[o, i] over the leaves of `split` that x's columns hold.
  // x [T, K_local], w [N, K_local], out [T, N].
  virtual void Linear(Stream& stream, TensorView x, const WeightView& w,
                      const KSplit& split, TensorView out) = 0;
  // Per head h: out[t, h, :] = x[t, h, :] W_h, contraction over the ROWS of W_h (absorbs
  // W_uk). Rows of head h: w rows [h * head_rows + row_begin, + n). x [T, H, n], out [T,
  // H, cols]. Sums run over the n rows in rising order with one accumulator per output
  // element.
  virtual void HeadLinearTransposed(Stream& stream, TensorView x, const WeightView& w,
                                    int64_t head_rows, int64_t row_begin,
                                    TensorView out) = 0;
  // Per head h: out[t, h, o] = sum_i x[t, h, i] w[h * head_rows + row_begin + o, i].
  // x [T, H, K], out [T, H, n].
  virtual void HeadLinear(Stream& stream, TensorView x, const WeightView& w,
                          int64_t head_rows, int64_t row_begin, TensorView out) = 0;

  // ---- rows ----

  // out[t] = table[ids[t]], decoded. ids [T] i32, out [T, d].
  virtual void Embedding(Stream& stream, const WeightView& table, TensorView ids,
                         TensorView out) = 0;
  // out = x * rsqrt(mean(x^2) + eps) * weight, over the last dimension. x [T, d] or [T,
  // M, d]; weight [1, d], or without data: ones. May work in place.
  virtual void RmsNorm(Stream& stream, TensorView x, const WeightView& weight, double eps,
                       TensorView out) = 0;
  // (x - mean) * rsqrt(var + eps) * weight + bias; x [T, D]. May work in place.
  virtual void LayerNorm(Stream& stream, TensorView x, const float* weight,
                         const float* bias, double eps, TensorView out) = 0;
  // In place on x [T, heads, >= r]: the first r values of the last dimension, at
  // positions[t] (i32). cos and sin are of the float32 product position * inv_freq[i], i
  // < r/2. A position of -1 turns by -1 like any other.
  virtual void Rope(Stream& stream, TensorView x, TensorView positions,
                    std::span<const float> inv_freq, RopePairing pairing) = 0;
  // In place on x [rows…, D]: orthonormal Walsh-Hadamard in natural order, D a power of
  // two.
  virtual void Hadamard(Stream& stream, TensorView x) = 0;
  // In place on x [rows…, D]: each vector to e4m3 with one power-of-two scale and back:
  //   s = the smallest 2^k >= max(max|x|, 1e-4) / 448; x = e4m3(x / s) * s,
  // evaluated in float32 whatever the activation type, nearest value, ties to even.
  virtual void FakeQuantizeE4M3(Stream& stream, TensorView x) = 0;
  // x *= factor, in place.
  virtual void Scale(Stream& stream, TensorView x, double factor) = 0;
  // As FakeQuantizeE4M3, to e2m1 (model.md 2.2, 9.2): x = e2m1(min(|x / s|, 6)) s with
  // the sign of x and one scale of kind `scale` for each last-dimension vector. A vector
  // with a NaN or an infinity becomes NaN. 8 bytes and a division a value.
  virtual void FakeQuantizeFp4(Stream& stream, TensorView x, Fp4Scale scale) = 0;
  // x[t] += bias[positions[t] % bias.rows]; x [T, C], bias [ratio, C] f32, positions [T]
  // i32. Nothing is added at position -1. 12 bytes and one FLOP a value.
  virtual void AddPositionBias(Stream& stream, TensorView x, const WeightView& bias,
                               TensorView positions) = 0;
  // out = silu(min(gate, limit)) * clamp(up, -limit, limit); all [T, m]. Limit 0: none.
  virtual void SiluMul(Stream& stream, TensorView gate, TensorView up, double limit,
                       TensorView out) = 0;
  // out += x; same shapes.
  virtual void Add(Stream& stream, TensorView x, TensorView out) = 0;
  // out[t] = x[t], same shapes, any strides; of activations or of i32.
  virtual void Copy(Stream& stream, TensorView x, TensorView out) = 0;
  // out[i] = x[rows[i]]; rows [n] i32. A negative one gives zeros.
  virtual void GatherRows(Stream& stream, TensorView x, TensorView rows,
                          TensorView out) = 0;

  // ---- paged caches ----

  // cache[slot / block_size, slot % block_size, :] = x[t], slot = slots[t], in the format
  // of the cache's rows; x [T, w], slots [T] i32. A negative slot stores nothing. The ops
  // below read a packed row as float32, and with it compute what they would with a cache
  // of activations that holds those values, bit by bit.
  virtual void StorePaged(Stream& stream, TensorView x, TensorView slots,
                          const CacheView& cache) = 0;
  virtual void IndexerSelect(Stream& stream, const IndexerSelectArgs& args) = 0;
  virtual void MlaAttention(Stream& stream, const MlaAttentionArgs& args) = 0;
  virtual void Compress(Stream& stream, const CompressArgs& args) = 0;
  virtual void SharedKvAttention(Stream& stream, const SharedKvAttentionArgs& args) = 0;

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
  virtual void HyperHead(Stream& stream, const HyperCoefficientsArgs& args,
                         TensorView out) = 0;

  // ---- mixture of experts ----

  virtual void Route(Stream& stream, const RouterArgs& args) = 0;
  // out[t] = table[token_ids[t]]; table [V, k] i64, token_ids [T] i32, out [T, k] i32.
  // The experts of hash layers (model.md 6.7). 12 bytes an expert.
  virtual void LookupExperts(Stream& stream, const int64_t* table, TensorView token_ids,
                             TensorView out) = 0;
  virtual void ListExpertItems(Stream& stream, const ExpertItemsArgs& args) = 0;
  // counts[e] = how many of expert_ids [T, k] i32 are e; counts [E] i32. An id outside of
  // 0..E-1 counts nothing. 4 bytes an id.
  virtual void CountExperts(Stream& stream, TensorView expert_ids, TensorView counts) = 0;
  virtual void GroupedExperts(Stream& stream, const GroupedExpertsArgs& args) = 0;
  // out[t] = sum over slots j, rising, of weights[t, j] * y[row_of_slot[t, j]]; y [n, d],
  // row_of_slot and weights [T, k], out [T, d]. A negative row adds nothing.
  virtual void CombineExperts(Stream& stream, TensorView y, TensorView row_of_slot,
                              TensorView weights, TensorView out) = 0;
  // packed[t] = the entries of row_of_slot[t] that are not negative, in order, then -1;
  // row_of_slot [T, k] i32, packed [T, m] i32. Entries beyond the m-th are left out.
  virtual void PackSlots(Stream& stream, TensorView row_of_slot, TensorView packed) = 0;
  virtual void LocateReturns(Stream& stream, const LocateReturnsArgs& args) = 0;

  // ---- Engram ----

  // Packed rows to values: `rows` u8 [T, C * row_bytes], a row = W values e4m3 then W/32
  // E8M0 scale bytes (value * 2^(byte-127), rounded to bf16), or W bf16 values. out [T, C
  // * W].
  virtual void DecodeEngramRows(Stream& stream, TensorView rows, DType format,
                                int64_t width, TensorView out) = 0;
  virtual void EngramGate(Stream& stream, const EngramGateArgs& args) = 0;
  virtual void EngramConv(Stream& stream, const EngramConvArgs& args) = 0;
};

struct BackendOptions {
  std::string_view name = "cpu";      // reference | cpu | cuda
  DType dtype = DType::kF32;          // kF64: reference only
  std::string_view cpu_isa = "auto";  // auto | scalar | avx2 | avx512 | amx
  // How cpu rounds: f32, or int8-g32: what meets e2m1 expert weights is first rounded to
  // 8 bits with a scale per 32 values; all else as f32. w8a8-g32: that, and what Prepare
  // was given (WeightView says how).
  std::string_view numerics = "f32";
  int num_threads = 1;  // of this rank
  bool pin_threads = false;
  // Fused multiply-adds that cpu wakes another thread for, at least 1. A core does the
  // default in 20 to 50 us. Waking a thread costs both sides a few of them, and where
  // others use the cores too, the caller waits until the thread gets one. No bit depends
  // on it.
  int64_t work_per_thread = int64_t{1} << 20;
};

// kInvalidArgument: an unknown name, or an instruction set or numerics that is not here;
// kNotFound, "no device": this build's `cuda` is a GPU, and this machine has none.
absl::StatusOr<std::unique_ptr<KernelBackend>> CreateBackend(
    const BackendOptions& options);

}  // namespace tessera::kernels

#endif  // TESSERA_KERNELS_KERNEL_BACKEND_H_
