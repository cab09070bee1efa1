#include "kernels/reference/reference_backend.h"

#include <type_traits>

#include "fmt/format.h"

#include "common/status.h"
#include "kernels/fp8_products.h"
#include "kernels/reference/reference_ops.h"
#include "kernels/reference/weight_decode.h"
#include "kernels/runtime/host_runtime.h"

namespace tessera::kernels {
namespace {

template <typename T>
class ReferenceBackend final : public KernelBackend {
 public:
  explicit ReferenceBackend(bool rounds_fp8) : rounds_fp8_(rounds_fp8) {}

  std::string_view name() const override { return "reference"; }
  std::string_view numerics_id() const override {
    if (rounds_fp8_) {
      return "reference/fp8-g128";
    }
    return std::is_same_v<T, float> ? "reference/f32" : "reference/f64";
  }
  DType activation_dtype() const override { return kDTypeOf<T>; }
  std::string_view isa() const override { return "plain"; }

  absl::Status Supports(DType weight, DType scale) const override {
    if (reference::CanDecode(weight, scale)) {
      return absl::OkStatus();
    }
    return absl::UnimplementedError(
        fmt::format("reference backend: weights of type {} with {} scales",
                    model::DTypeName(weight), model::DTypeName(scale)));
  }
  absl::Status CheckShapes(const ModelShapes&) const override {
    return absl::OkStatus();  // its loops have no scratch of fixed size
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
    if (rounds_fp8_ && IsFp8Product(w, split)) {
      reference::Fp8Linear(x, w, split, out);
      return;
    }
    reference::Linear<T>(x, w, split, out);
  }
  void HeadLinearTransposed(Stream&, TensorView x, const WeightView& w, int64_t head_rows,
                            int64_t row_begin, TensorView out) override {
    reference::HeadLinearTransposed<T>(x, w, head_rows, row_begin, out);
  }
  void HeadLinear(Stream&, TensorView x, const WeightView& w, int64_t head_rows,
                  int64_t row_begin, TensorView out) override {
    reference::HeadLinear<T>(x, w, head_rows, row_begin, out);
  }

  void Embedding(Stream&, const WeightView& table, TensorView ids,
                 TensorView out) override {
    reference::Embedding<T>(table, ids, out);
  }
  void RmsNorm(Stream&, TensorView x, const WeightView& weight, double eps,
               TensorView out) override {
    reference::RmsNorm<T>(x, weight, eps, out);
  }
  void LayerNorm(Stream&, TensorView x, const float* weight, const float* bias,
                 double eps, TensorView out) override {
    reference::LayerNorm<T>(x, weight, bias, eps, out);
  }
  void Rope(Stream&, TensorView x, TensorView positions, std::span<const float> inv_freq,
            RopePairing pairing) override {
    reference::Rope<T>(x, positions, inv_freq, pairing);
  }
  void Hadamard(Stream&, TensorView x) override { reference::Hadamard<T>(x); }
  void FakeQuantizeE4M3(Stream&, TensorView x) override {
    reference::FakeQuantizeE4M3<T>(x);
  }
  void FakeQuantizeFp4(Stream&, TensorView x, Fp4Scale scale) override {
    reference::FakeQuantizeFp4<T>(x, scale);
  }
  void AddPositionBias(Stream&, TensorView x, const WeightView& bias,
                       TensorView positions) override {
    reference::AddPositionBias<T>(x, bias, positions);
  }
  void Scale(Stream&, TensorView x, double factor) override {
    reference::Scale<T>(x, factor);
  }
  void SiluMul(Stream&, TensorView gate, TensorView up, double limit,
               TensorView out) override {
    reference::SiluMul<T>(gate, up, limit, out);
  }
  void Add(Stream&, TensorView x, TensorView out) override { reference::Add<T>(x, out); }
  void Copy(Stream&, TensorView x, TensorView out) override {
    TESSERA_CHECK(x.dtype == out.dtype);
    if (x.dtype == DType::kI32) {
      reference::Copy<int32_t>(x, out);
    } else {
      reference::Copy<T>(x, out);
    }
  }
  void GatherRows(Stream&, TensorView x, TensorView rows, TensorView out) override {
    reference::GatherRows<T>(x, rows, out);
  }
  void StorePaged(Stream&, TensorView x, TensorView slots,
                  const CacheView& cache) override {
    reference::StorePaged<T>(x, slots, cache);
  }
  void IndexerSelect(Stream&, const IndexerSelectArgs& args) override {
    reference::IndexerSelect<T>(args);
  }
  void MlaAttention(Stream&, const MlaAttentionArgs& args) override {
    reference::MlaAttention<T>(args);
  }
  void Compress(Stream&, const CompressArgs& args) override {
    reference::Compress<T>(args);
  }
  void SharedKvAttention(Stream&, const SharedKvAttentionArgs& args) override {
    reference::SharedKvAttention<T>(args);
  }

  void ExpandStreams(Stream&, TensorView x, TensorView out) override {
    reference::ExpandStreams<T>(x, out);
  }
  void HyperCoefficients(Stream&, const HyperCoefficientsArgs& args) override {
    reference::HyperCoefficients<T>(args);
  }
  void HyperCollapse(Stream&, TensorView streams, TensorView pre,
                     TensorView out) override {
    reference::HyperCollapse<T>(streams, pre, out);
  }
  void HyperExpand(Stream&, TensorView y, TensorView post, TensorView mix,
                   TensorView streams) override {
    reference::HyperExpand<T>(y, post, mix, streams);
  }
  void HyperHead(Stream&, const HyperCoefficientsArgs& args, TensorView out) override {
    reference::HyperHead<T>(args, out);
  }

  void Route(Stream&, const RouterArgs& args) override { reference::Route<T>(args); }
  void LookupExperts(Stream&, const int64_t* table, TensorView token_ids,
                     TensorView out) override {
    reference::LookupExperts(table, token_ids, out);
  }
  void ListExpertItems(Stream&, const ExpertItemsArgs& args) override {
    reference::ListExpertItems<T>(args);
  }
  void CountExperts(Stream&, TensorView expert_ids, TensorView counts) override {
    reference::CountExperts(expert_ids, counts);
  }
  void GroupedExperts(Stream&, const GroupedExpertsArgs& args) override {
    if (rounds_fp8_) {
      reference::Fp8GroupedExperts(args);
      return;
    }
    reference::GroupedExperts<T>(args);
  }
  void CombineExperts(Stream&, TensorView y, TensorView row_of_slot, TensorView weights,
                      TensorView out) override {
    reference::CombineExperts<T>(y, row_of_slot, weights, out);
  }
  void PackSlots(Stream&, TensorView row_of_slot, TensorView packed) override {
    reference::PackSlots(row_of_slot, packed);
  }
  void LocateReturns(Stream&, const LocateReturnsArgs& args) override {
    reference::LocateReturns(args);
  }

  void DecodeEngramRows(Stream&, TensorView rows, DType format, int64_t width,
                        TensorView out) override {
    reference::DecodeEngramRows<T>(rows, format, width, out);
  }
  void EngramGate(Stream&, const EngramGateArgs& args) override {
    reference::EngramGate<T>(args);
  }
  void EngramConv(Stream&, const EngramConvArgs& args) override {
    reference::EngramConv<T>(args);
  }

 private:
  const bool rounds_fp8_;  // numerics fp8-g128, of float alone
};

}  // namespace

absl::StatusOr<std::unique_ptr<KernelBackend>> CreateReferenceBackend(
    const BackendOptions& options) {
  const bool rounds_fp8 = options.numerics == "fp8-g128";
  if (!rounds_fp8 && options.numerics != "f32") {
    return InvalidArgumentF("reference backend: numerics '{}', expected f32 or fp8-g128",
                            options.numerics);
  }
  if (options.dtype == DType::kF32) {
    return std::make_unique<ReferenceBackend<float>>(rounds_fp8);
  }
  if (options.dtype == DType::kF64 && !rounds_fp8) {
    return std::make_unique<ReferenceBackend<double>>(false);
  }
  return InvalidArgumentF(
      "reference backend: dtype {} with numerics {}, expected {}{}",
      model::DTypeName(options.dtype), options.numerics, model::DTypeName(DType::kF32),
      rounds_fp8 ? "" : fmt::format(" or {}", model::DTypeName(DType::kF64)));
}

}  // namespace tessera::kernels
