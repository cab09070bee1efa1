#include "kernels/cpu/cpu_backend.h"

#include <utility>

#include "fmt/format.h"

#include "common/status.h"
#include "common/status_macros.h"
#include "kernels/cpu/cpu_ops.h"
#include "kernels/cpu/isa/cpu_features.h"
#include "kernels/cpu/isa/simd_tables.h"
#include "kernels/cpu/isa/tile_support.h"
#include "kernels/runtime/host_runtime.h"

namespace tessera::kernels {
namespace {

class CpuBackend final : public KernelBackend {
 public:
  CpuBackend(cpu::CpuIsa isa, std::unique_ptr<cpu::CpuContext> context)
      : isa_(isa), context_(std::move(context)) {}

  std::string_view name() const override { return "cpu"; }
  std::string_view numerics_id() const override {
    if (context_->rounds_dense()) {
      return "cpu/w8a8-g32";
    }
    return context_->rounds_experts() ? "cpu/int8-g32" : "cpu/f32";
  }
  DType activation_dtype() const override { return DType::kF32; }
  std::string_view isa() const override { return cpu::CpuIsaName(isa_); }

  absl::Status Supports(DType weight, DType scale) const override {
    if (cpu::CanRun(weight, scale)) {
      return absl::OkStatus();
    }
    return absl::UnimplementedError(
        fmt::format("cpu backend: weights of type {} with {} scales",
                    model::DTypeName(weight), model::DTypeName(scale)));
  }
  absl::Status CheckShapes(const ModelShapes& shapes) const override {
    return cpu::CheckShapes(shapes);
  }
  absl::StatusOr<WeightView> Prepare(const WeightView& w, const KSplit& split,
                                     DeviceBuffer* memory) override {
    if (!context_->rounds_dense()) {
      return w;
    }
    return cpu::RoundWeight(*context_, w, split, memory);
  }
  absl::StatusOr<DeviceBuffer> Allocate(size_t bytes) override {
    return AllocateHost(bytes);
  }
  absl::StatusOr<std::unique_ptr<Stream>> CreateStream() override {
    return std::make_unique<HostStream>();
  }
  void Upload(Stream&, const void* host, TensorView device) override {
    CopyDenseToView(host, device);
  }
  void Download(Stream&, TensorView device, void* host) override {
    CopyViewToDense(device, host);
  }

  void Linear(Stream&, TensorView x, const WeightView& w, const KSplit& split,
              TensorView out) override {
    cpu::Linear(*context_, x, w, split, out);
  }
  void HeadLinearTransposed(Stream&, TensorView x, const WeightView& w, int64_t head_rows,
                            int64_t row_begin, TensorView out) override {
    cpu::HeadLinearTransposed(*context_, x, w, head_rows, row_begin, out);
  }
  void HeadLinear(Stream&, TensorView x, const WeightView& w, int64_t head_rows,
                  int64_t row_begin, TensorView out) override {
    cpu::HeadLinear(*context_, x, w, head_rows, row_begin, out);
  }

  void Embedding(Stream&, const WeightView& table, TensorView ids,
                 TensorView out) override {
    cpu::Embedding(*context_, table, ids, out);
  }
  void RmsNorm(Stream&, TensorView x, const WeightView& weight, double eps,
               TensorView out) override {
    cpu::RmsNorm(*context_, x, weight, eps, out);
  }
  void LayerNorm(Stream&, TensorView x, const float* weight, const float* bias,
                 double eps, TensorView out) override {
    cpu::LayerNorm(*context_, x, weight, bias, eps, out);
  }
  void Rope(Stream&, TensorView x, TensorView positions, std::span<const float> inv_freq,
            RopePairing pairing) override {
    cpu::Rope(*context_, x, positions, inv_freq, pairing);
  }
  void Hadamard(Stream&, TensorView x) override { cpu::Hadamard(*context_, x); }
  void FakeQuantizeE4M3(Stream&, TensorView x) override {
    cpu::FakeQuantizeE4M3(*context_, x);
  }
  void FakeQuantizeFp4(Stream&, TensorView x, Fp4Scale scale) override {
    cpu::FakeQuantizeFp4(*context_, x, scale);
  }
  void AddPositionBias(Stream&, TensorView x, const WeightView& bias,
                       TensorView positions) override {
    cpu::AddPositionBias(*context_, x, bias, positions);
  }
  void Scale(Stream&, TensorView x, double factor) override {
    cpu::Scale(*context_, x, factor);
  }
  void SiluMul(Stream&, TensorView gate, TensorView up, double limit,
               TensorView out) override {
    cpu::SiluMul(*context_, gate, up, limit, out);
  }
  void Add(Stream&, TensorView x, TensorView out) override {
    cpu::Add(*context_, x, out);
  }
  void Copy(Stream&, TensorView x, TensorView out) override {
    cpu::Copy(*context_, x, out);
  }
  void GatherRows(Stream&, TensorView x, TensorView rows, TensorView out) override {
    cpu::GatherRows(*context_, x, rows, out);
  }
  void StorePaged(Stream&, TensorView x, TensorView slots,
                  const CacheView& cache) override {
    cpu::StorePaged(*context_, x, slots, cache);
  }
  void IndexerSelect(Stream&, const IndexerSelectArgs& args) override {
    cpu::IndexerSelect(*context_, args);
  }
  void MlaAttention(Stream&, const MlaAttentionArgs& args) override {
    cpu::MlaAttention(*context_, args);
  }
  void Compress(Stream&, const CompressArgs& args) override {
    cpu::Compress(*context_, args);
  }
  void SharedKvAttention(Stream&, const SharedKvAttentionArgs& args) override {
    cpu::SharedKvAttention(*context_, args);
  }

  void ExpandStreams(Stream&, TensorView x, TensorView out) override {
    cpu::ExpandStreams(*context_, x, out);
  }
  void HyperCoefficients(Stream&, const HyperCoefficientsArgs& args) override {
    cpu::HyperCoefficients(*context_, args);
  }
  void HyperCollapse(Stream&, TensorView streams, TensorView pre,
                     TensorView out) override {
    cpu::HyperCollapse(*context_, streams, pre, out);
  }
  void HyperExpand(Stream&, TensorView y, TensorView post, TensorView mix,
                   TensorView streams) override {
    cpu::HyperExpand(*context_, y, post, mix, streams);
  }
  void HyperHead(Stream&, const HyperCoefficientsArgs& args, TensorView out) override {
    cpu::HyperHead(*context_, args, out);
  }

  void Route(Stream&, const RouterArgs& args) override { cpu::Route(*context_, args); }
  void LookupExperts(Stream&, const int64_t* table, TensorView token_ids,
                     TensorView out) override {
    cpu::LookupExperts(*context_, table, token_ids, out);
  }
  void ListExpertItems(Stream&, const ExpertItemsArgs& args) override {
    cpu::ListExpertItems(args);
  }
  void CountExperts(Stream&, TensorView expert_ids, TensorView counts) override {
    cpu::CountExperts(expert_ids, counts);
  }
  void GroupedExperts(Stream&, const GroupedExpertsArgs& args) override {
    cpu::GroupedExperts(*context_, args);
  }
  void CombineExperts(Stream&, TensorView y, TensorView row_of_slot, TensorView weights,
                      TensorView out) override {
    cpu::CombineExperts(*context_, y, row_of_slot, weights, out);
  }
  void PackSlots(Stream&, TensorView row_of_slot, TensorView packed) override {
    cpu::PackSlots(row_of_slot, packed);
  }
  void LocateReturns(Stream&, const LocateReturnsArgs& args) override {
    cpu::LocateReturns(args);
  }

  void DecodeEngramRows(Stream&, TensorView rows, DType format, int64_t width,
                        TensorView out) override {
    cpu::DecodeEngramRows(*context_, rows, format, width, out);
  }
  void EngramGate(Stream&, const EngramGateArgs& args) override {
    cpu::EngramGate(*context_, args);
  }
  void EngramConv(Stream&, const EngramConvArgs& args) override {
    cpu::EngramConv(*context_, args);
  }

 private:
  const cpu::CpuIsa isa_;
  const std::unique_ptr<cpu::CpuContext> context_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<KernelBackend>> CreateCpuBackend(
    const BackendOptions& options) {
  if (options.dtype != DType::kF32) {
    return absl::InvalidArgumentError(fmt::format("cpu backend: dtype {}, expected {}",
                                                  model::DTypeName(options.dtype),
                                                  model::DTypeName(DType::kF32)));
  }
  if (options.numerics != "f32" && options.numerics != "int8-g32" &&
      options.numerics != "w8a8-g32") {
    return absl::InvalidArgumentError(
        fmt::format("cpu backend: numerics '{}', expected f32, int8-g32 or w8a8-g32",
                    options.numerics));
  }
  TESSERA_ASSIGN_OR_RETURN(
      const cpu::CpuIsa isa,
      cpu::SettleCpuIsa(options.cpu_isa, cpu::CpuIsasOf(cpu::ReadCpu()),
                        &cpu::PrepareTiles));
  if (options.work_per_thread < 1) {
    return absl::InvalidArgumentError(
        fmt::format("cpu backend: {} multiply-adds per thread, expected at least 1",
                    options.work_per_thread));
  }
  TESSERA_ASSIGN_OR_RETURN(std::unique_ptr<cpu::CpuContext> context,
                           cpu::CpuContext::Create(cpu::TableOf(isa), options));
  return std::make_unique<CpuBackend>(isa, std::move(context));
}

}  // namespace tessera::kernels
