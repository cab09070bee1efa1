#include "kernels/cuda/products/fp8_ops.h"

#include <algorithm>
#include <utility>

#include "common/check.h"
#include "common/status.h"
#include "common/status_macros.h"
#include "kernels/cuda/products/fp4_gemm.h"
#include "kernels/cuda/products/fp8_gemm.h"
#include "kernels/fp8_products.h"

namespace tessera::kernels::cuda {
namespace {

constexpr int64_t kAlignment = 256;  // of what the workspace is cut into
constexpr int64_t kRowGrain = 16;    // bytes that rows of tokens and scales lie apart
constexpr int64_t kScaleGrain = kRowGrain / static_cast<int64_t>(sizeof(float));

int64_t RoundUp(int64_t value, int64_t grain) {
  return (value + grain - 1) / grain * grain;
}

// Cuts views from memory, or with none counts their bytes.
class Cutter {
 public:
  explicit Cutter(void* memory) : memory_(static_cast<std::byte*>(memory)) {}

  int64_t bytes() const { return used_; }

  TensorView Floats(int64_t rows, int64_t cols) {
    return TensorView(Take(rows * cols * static_cast<int64_t>(sizeof(float))),
                      DType::kF32, {rows, cols});
  }
  Fp8Tokens Tokens(int64_t rows, int64_t inputs) {
    Fp8Tokens tokens;
    const int64_t row_bytes = RoundUp(inputs, kRowGrain);
    tokens.codes = TensorView(Take(rows * row_bytes), DType::kU8, {rows, row_bytes});
    tokens.codes.shape[1] = inputs;
    tokens.scales = Floats(BlocksFor(inputs, kFp8Group), RoundUp(rows, kScaleGrain));
    tokens.scales.shape[1] = rows;
    return tokens;
  }

 private:
  void* Take(int64_t bytes) {
    std::byte* const at = memory_ == nullptr ? nullptr : memory_ + used_;
    used_ += RoundUp(bytes, kAlignment);
    return at;
  }

  std::byte* const memory_;
  int64_t used_ = 0;
};

// What a product of `rows` rows has beside its arguments.
struct LinearScratch {
  LinearScratch(void* memory, int64_t rows, const WeightView& w, int leaves)
      : cutter(memory), tokens(cutter.Tokens(rows, w.cols)) {
    if (leaves > 1) {
      sums = cutter.Floats(leaves * rows, w.rows);
    }
  }
  Cutter cutter;
  Fp8Tokens tokens;
  TensorView sums;
};

struct ExpertScratch {
  ExpertScratch(void* memory, int64_t items, const ExpertPart& part)
      : cutter(memory),
        tokens(cutter.Tokens(items, part.gate.cols)),
        gate(cutter.Floats(items, part.gate.rows)),
        up(cutter.Floats(items, part.gate.rows)),
        hidden(cutter.Tokens(items, part.down.cols)) {}
  Cutter cutter;
  Fp8Tokens tokens;
  TensorView gate;
  TensorView up;
  Fp8Tokens hidden;
};

// The most rows, at most `rows`, whose scratch fits. `bytes_of(n)` does not fall with n.
template <typename BytesOf>
absl::StatusOr<int64_t> RowsThatFit(int64_t rows, int64_t available, BytesOf bytes_of) {
  int64_t fits = 0;
  int64_t over = rows + 1;
  while (over - fits > 1) {
    const int64_t middle = (fits + over) / 2;
    (bytes_of(middle) <= available ? fits : over) = middle;
  }
  if (fits == 0) {
    return StatusF(absl::StatusCode::kResourceExhausted,
                   "fp8 products: a row needs {} bytes of workspace, which has {}",
                   bytes_of(1), available);
  }
  return fits;
}

// Of items of a chunk.
absl::Status Multiply(GpuStream& stream, const Fp8Tokens& x, const ExpertMatrices& w,
                      const ListedItems& items, TensorView out) {
  const int64_t experts = items.item_offsets.dim(0) - 1;
  const Fp8GemmShape shape = {.tokens = (x.codes.dim(0) + experts - 1) / experts,
                              .outputs = w.weight().rows,
                              .inputs = w.weight().cols,
                              .groups = std::min(experts, x.codes.dim(0))};
  return w.weight().dtype == DType::kFp4
             ? Fp4GroupedLinear(stream, x, w, items, ChooseFp4Gemm(shape), out)
             : Fp8GroupedLinear(stream, x, w, items, ChooseFp8Gemm(shape), out);
}

}  // namespace

absl::StatusOr<std::unique_ptr<Fp8Ops>> Fp8Ops::Create(
    std::shared_ptr<GpuMachine> machine, int device, GpuStream& stream,
    size_t workspace_bytes) {
  std::unique_ptr<Fp8Ops> ops(new Fp8Ops(std::move(machine), workspace_bytes));
  TESSERA_ASSIGN_OR_RETURN(ops->memory_, ops->machine_->Malloc(device, workspace_bytes));
  // Tiles read rows that no token has, which must have been written once.
  TESSERA_RETURN_IF_ERROR(stream.MemsetAsync(ops->memory_, 0, workspace_bytes));
  TESSERA_RETURN_IF_ERROR(stream.Synchronize());
  return ops;
}

Fp8Ops::~Fp8Ops() {
  if (memory_ != nullptr) {
    static_cast<void>(machine_->Free(memory_));  // its own: a failure is one of an op
  }
}

absl::Status Fp8Ops::Linear(GpuStream& stream, TensorView x, const WeightView& w,
                            const KSplit& split, TensorView out) const {
  TESSERA_CHECK(IsFp8Product(w, split));
  TESSERA_CHECK_EQ(x.dim(1), w.cols);
  if (out.empty()) {
    return absl::OkStatus();
  }
  const int leaves = std::max(split.num_leaves, 1);
  TESSERA_ASSIGN_OR_RETURN(
      const int64_t chunk, RowsThatFit(x.dim(0), bytes_, [&](int64_t rows) {
        return LinearScratch(nullptr, rows, w, leaves).cutter.bytes();
      }));
  for (int64_t first = 0; first < x.dim(0); first += chunk) {
    const int64_t count = std::min(chunk, x.dim(0) - first);
    const LinearScratch scratch(memory_, count, w, leaves);
    const TensorView to = out.Rows(first, count);
    QuantizeTokens(stream, x.Rows(first, count), scratch.tokens);
    TESSERA_RETURN_IF_ERROR(Fp8Linear(stream, scratch.tokens, w,
                                      ChooseFp8Gemm({.tokens = count,
                                                     .outputs = w.rows,
                                                     .inputs = w.cols / leaves,
                                                     .groups = leaves}),
                                      leaves > 1 ? scratch.sums : to, leaves));
    if (leaves > 1) {
      SumLeaves(stream, scratch.sums, leaves, to);
    }
  }
  return absl::OkStatus();
}

absl::Status Fp8Ops::RunItems(GpuStream& stream, const ExpertPart& part,
                              const GroupedExpertsArgs& args, int64_t first,
                              int64_t count) const {
  const ExpertScratch scratch(memory_, count, part);
  const ListedItems items = {args.item_offsets, first};
  const auto fill = args.x.dtype == DType::kU8 ? GatherItems : QuantizeItems;
  fill(stream, args.x, args.row_of_item, items, scratch.tokens);
  TESSERA_RETURN_IF_ERROR(
      Multiply(stream, scratch.tokens, {&part, 0}, items, scratch.gate));
  TESSERA_RETURN_IF_ERROR(
      Multiply(stream, scratch.tokens, {&part, 1}, items, scratch.up));
  QuantizeActivations(stream, scratch.gate, scratch.up, args.swiglu_limit,
                      args.item_weights, items, scratch.hidden);
  return Multiply(stream, scratch.hidden, {&part, 2}, items, args.out.Rows(first, count));
}

absl::Status Fp8Ops::GroupedExperts(GpuStream& stream, const ExpertPart& part,
                                    const GroupedExpertsArgs& args) const {
  const int64_t items = args.out.dim(0);
  if (items == 0) {
    return absl::OkStatus();
  }
  TESSERA_ASSIGN_OR_RETURN(const int64_t chunk,
                           RowsThatFit(items, bytes_, [&](int64_t count) {
                             return ExpertScratch(nullptr, count, part).cutter.bytes();
                           }));
  for (int64_t first = 0; first < items; first += chunk) {
    TESSERA_RETURN_IF_ERROR(
        RunItems(stream, part, args, first, std::min(chunk, items - first)));
  }
  return absl::OkStatus();
}

}  // namespace tessera::kernels::cuda
