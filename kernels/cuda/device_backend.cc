#include "kernels/cuda/device_backend.h"

#include <algorithm>
#include <utility>

#include "fmt/format.h"

#include "common/check.h"
#include "common/log.h"
#include "common/status_macros.h"
#include "kernels/cuda/backend_stream.h"
#include "kernels/cuda/cuda_ops.h"
#include "kernels/cuda/engram_rows/device_engram_reader.h"
#include "kernels/cuda/expert_table.h"
#include "kernels/cuda/products/fp8_ops.h"
#include "kernels/engram_reader.h"
#include "kernels/fp8_products.h"
#include "kernels/runtime/stream_event.h"
#include "kernels/runtime/stream_graph.h"

namespace tessera::kernels::cuda {
namespace {

BackendStream& AsCuda(Stream& stream) { return AsBackendStream(stream); }
GpuStream& On(Stream& stream) { return GpuStreamOf(stream); }

class BackendGraph final : public StreamGraph {
 public:
  explicit BackendGraph(GpuGraph graph) : graph_(std::move(graph)) {}

  absl::Status Launch(Stream& stream) override { return On(stream).Launch(graph_); }
  int64_t num_nodes() const override { return graph_.num_nodes(); }
  int64_t device_bytes() const override { return graph_.device_bytes(); }

 private:
  const GpuGraph graph_;
};

class BackendEvent final : public StreamEvent {
 public:
  explicit BackendEvent(std::shared_ptr<GpuMachine> machine)
      : event_(std::move(machine)) {}

  absl::Status Record(Stream& stream) override { return On(stream).Record(event_); }
  absl::Status Wait(Stream& stream) override { return On(stream).Wait(event_); }

 private:
  GpuEvent event_;
};

// Calls copy(byte offset in the view, byte offset in the dense array, shape) for each
// matrix of the last two dimensions; the pitch of the view is `to_pitch`.
template <typename Copy>
void ForEachMatrix(const TensorView& view, Copy copy) {
  if (view.empty()) {
    return;
  }
  const size_t bits = model::DTypeBits(view.dtype);
  const auto bytes = [&](int64_t elements) {
    return static_cast<size_t>(elements) * bits / 8;
  };
  const int last = view.rank - 1;
  CopyShape shape;
  shape.row_bytes = bytes(view.dim(last));
  shape.rows = last > 0 ? static_cast<size_t>(view.dim(last - 1)) : 1;
  shape.to_pitch = last > 0 ? bytes(view.stride(last - 1)) : shape.row_bytes;
  shape.from_pitch = shape.row_bytes;
  const int64_t in_matrix = view.dim(last) * static_cast<int64_t>(shape.rows);
  for (int64_t i = 0; i < view.num_elements() / in_matrix; ++i) {
    int64_t offset = 0;
    int64_t rest = i;
    for (int axis = last - 2; axis >= 0; --axis) {
      offset += rest % view.dim(axis) * view.stride(axis);
      rest /= view.dim(axis);
    }
    copy(bytes(offset), static_cast<size_t>(i) * shape.row_bytes * shape.rows, shape);
  }
}

class DeviceBackend final : public KernelBackend,
                            public EngramReaderFactory,
                            public StreamEventFactory,
                            public StreamGraphFactory {
 public:
  DeviceBackend(DeviceBackendOptions options, std::shared_ptr<GpuMachine> machine,
                std::unique_ptr<GpuStream> setup, std::unique_ptr<Fp8Ops> fp8_ops)
      : options_(std::move(options)),
        machine_(std::move(machine)),
        setup_(std::move(setup)),
        fp8_ops_(std::move(fp8_ops)),
        expert_tables_(machine_, options_.device, setup_.get(), fp8_ops_ != nullptr) {}

  std::string_view name() const override { return "cuda"; }
  std::string_view numerics_id() const override { return options_.numerics_id; }
  DType activation_dtype() const override { return DType::kF32; }
  std::string_view isa() const override { return options_.isa; }

  absl::Status Supports(DType weight, DType scale) const override {
    if (CanRun(weight, scale)) {
      return absl::OkStatus();
    }
    return absl::UnimplementedError(
        fmt::format("cuda backend: weights of type {} with {} scales",
                    model::DTypeName(weight), model::DTypeName(scale)));
  }
  absl::Status CheckShapes(const ModelShapes& shapes) const override {
    return cuda::CheckShapes(shapes);
  }

  std::unique_ptr<EngramReader> CreateEngramReader(Clock* clock) override {
    if (!options_.reads_engram_rows) {
      return CreateUploadedRows(this);
    }
    auto reader = CreateDeviceEngramReader(
        machine_, options_.registrations,
        {.device = options_.device,
         .gpu_stream = [](Stream& stream) -> GpuStream& { return On(stream); }},
        clock);
    if (!reader.ok()) {
      log::Warning("engram", "rows are gathered by the host and uploaded",
                   {{"device", options_.device}, {"reason", reader.status().ToString()}});
      return CreateUploadedRows(this);
    }
    return *std::move(reader);
  }

  std::unique_ptr<StreamEvent> CreateEvent() override {
    return std::make_unique<BackendEvent>(machine_);
  }
  absl::StatusOr<std::unique_ptr<StreamGraph>> Capture(
      Stream& stream, absl::FunctionRef<absl::Status()> enqueue) override {
    BackendStream& captured = AsCuda(stream);
    const absl::Status before = captured.TakeError();
    if (!before.ok()) {
      captured.Note(before);  // of work that has been enqueued
      return before;
    }
    TESSERA_RETURN_IF_ERROR(captured.gpu().BeginCapture());
    absl::Status status = enqueue();
    // What a call of the capture says is the capture's: none of it was executed.
    status.Update(captured.TakeError());
    absl::StatusOr<GpuGraph> graph = captured.gpu().EndCapture();
    TESSERA_RETURN_IF_ERROR(status);
    TESSERA_RETURN_IF_ERROR(graph.status());
    return std::make_unique<BackendGraph>(*std::move(graph));
  }

  absl::StatusOr<DeviceBuffer> Allocate(size_t bytes) override {
    TESSERA_ASSIGN_OR_RETURN(
        void* const memory,
        machine_->MallocManaged(options_.device, std::max<size_t>(bytes, 1)));
    DeviceBuffer buffer(memory, bytes, [machine = machine_](void* data) {
      static_cast<void>(machine->Free(data));  // its own: a failure is one of an op
    });
    if (options_.zeroes_memory && bytes > 0) {
      TESSERA_RETURN_IF_ERROR(setup_->MemsetAsync(memory, 0, bytes));
      TESSERA_RETURN_IF_ERROR(setup_->Synchronize());
    }
    return buffer;
  }
  absl::StatusOr<std::unique_ptr<Stream>> CreateStream() override {
    TESSERA_ASSIGN_OR_RETURN(auto stream, GpuStream::Create(machine_, options_.device));
    return std::make_unique<BackendStream>(std::move(stream));
  }
  void Upload(Stream& stream, const void* host, TensorView device) override {
    ForEachMatrix(device, [&](size_t in_view, size_t in_dense, const CopyShape& shape) {
      AsCuda(stream).Note(On(stream).Memcpy2DAsync(
          static_cast<std::byte*>(device.data) + in_view,
          static_cast<const std::byte*>(host) + in_dense, shape));
    });
  }
  void Download(Stream& stream, TensorView device, void* host) override {
    ForEachMatrix(device, [&](size_t in_view, size_t in_dense, CopyShape shape) {
      std::swap(shape.to_pitch, shape.from_pitch);
      AsCuda(stream).Note(On(stream).Memcpy2DAsync(
          static_cast<std::byte*>(host) + in_dense,
          static_cast<const std::byte*>(device.data) + in_view, shape));
    });
  }

  void Linear(Stream& stream, TensorView x, const WeightView& w, const KSplit& split,
              TensorView out) override {
    if (fp8_ops_ != nullptr && IsFp8Product(w, split)) {
      AsCuda(stream).Note(fp8_ops_->Linear(On(stream), x, w, split, out));
      return;
    }
    cuda::Linear(On(stream), x, w, split, out);
  }
  void HeadLinearTransposed(Stream& stream, TensorView x, const WeightView& w,
                            int64_t head_rows, int64_t row_begin,
                            TensorView out) override {
    cuda::HeadLinearTransposed(On(stream), x, w, head_rows, row_begin, out);
  }
  void HeadLinear(Stream& stream, TensorView x, const WeightView& w, int64_t head_rows,
                  int64_t row_begin, TensorView out) override {
    cuda::HeadLinear(On(stream), x, w, head_rows, row_begin, out);
  }

  void Embedding(Stream& stream, const WeightView& table, TensorView ids,
                 TensorView out) override {
    cuda::Embedding(On(stream), table, ids, out);
  }
  void RmsNorm(Stream& stream, TensorView x, const WeightView& weight, double eps,
               TensorView out) override {
    cuda::RmsNorm(On(stream), x, weight, eps, out);
  }
  void LayerNorm(Stream& stream, TensorView x, const float* weight, const float* bias,
                 double eps, TensorView out) override {
    cuda::LayerNorm(On(stream), x, weight, bias, eps, out);
  }
  void Rope(Stream& stream, TensorView x, TensorView positions,
            std::span<const float> inv_freq, RopePairing pairing) override {
    cuda::Rope(On(stream), x, positions, inv_freq, pairing);
  }
  void Hadamard(Stream& stream, TensorView x) override { cuda::Hadamard(On(stream), x); }
  void FakeQuantizeE4M3(Stream& stream, TensorView x) override {
    cuda::FakeQuantizeE4M3(On(stream), x);
  }
  void FakeQuantizeFp4(Stream& stream, TensorView x, Fp4Scale scale) override {
    cuda::FakeQuantizeFp4(On(stream), x, scale);
  }
  void AddPositionBias(Stream& stream, TensorView x, const WeightView& bias,
                       TensorView positions) override {
    cuda::AddPositionBias(On(stream), x, bias, positions);
  }
  void Scale(Stream& stream, TensorView x, double factor) override {
    cuda::Scale(On(stream), x, factor);
  }
  void SiluMul(Stream& stream, TensorView gate, TensorView up, double limit,
               TensorView out) override {
    cuda::SiluMul(On(stream), gate, up, limit, out);
  }
  void Add(Stream& stream, TensorView x, TensorView out) override {
    cuda::Add(On(stream), x, out);
  }
  void Copy(Stream& stream, TensorView x, TensorView out) override {
    cuda::Copy(On(stream), x, out);
  }
  void GatherRows(Stream& stream, TensorView x, TensorView rows,
                  TensorView out) override {
    cuda::GatherRows(On(stream), x, rows, out);
  }
  void StorePaged(Stream& stream, TensorView x, TensorView slots,
                  const CacheView& cache) override {
    cuda::StorePaged(On(stream), x, slots, cache);
  }
  void IndexerSelect(Stream& stream, const IndexerSelectArgs& args) override {
    cuda::IndexerSelect(On(stream), args);
  }
  void MlaAttention(Stream& stream, const MlaAttentionArgs& args) override {
    cuda::MlaAttention(On(stream), args);
  }
  void Compress(Stream& stream, const CompressArgs& args) override {
    cuda::Compress(On(stream), args);
  }
  void SharedKvAttention(Stream& stream, const SharedKvAttentionArgs& args) override {
    cuda::SharedKvAttention(On(stream), args);
  }

  void ExpandStreams(Stream& stream, TensorView x, TensorView out) override {
    cuda::ExpandStreams(On(stream), x, out);
  }
  void HyperCoefficients(Stream& stream, const HyperCoefficientsArgs& args) override {
    cuda::HyperCoefficients(On(stream), args);
  }
  void HyperCollapse(Stream& stream, TensorView streams, TensorView pre,
                     TensorView out) override {
    cuda::HyperCollapse(On(stream), streams, pre, out);
  }
  void HyperExpand(Stream& stream, TensorView y, TensorView post, TensorView mix,
                   TensorView streams) override {
    cuda::HyperExpand(On(stream), y, post, mix, streams);
  }
  void HyperHead(Stream& stream, const HyperCoefficientsArgs& args,
                 TensorView out) override {
    cuda::HyperHead(On(stream), args, out);
  }

  void Route(Stream& stream, const RouterArgs& args) override {
    cuda::Route(On(stream), args);
  }
  void LookupExperts(Stream& stream, const int64_t* table, TensorView token_ids,
                     TensorView out) override {
    cuda::LookupExperts(On(stream), table, token_ids, out);
  }
  void ListExpertItems(Stream& stream, const ExpertItemsArgs& args) override {
    cuda::ListExpertItems(On(stream), args);
  }
  void CountExperts(Stream& stream, TensorView expert_ids, TensorView counts) override {
    cuda::CountExperts(On(stream), expert_ids, counts);
  }
  void GroupedExperts(Stream& stream, const GroupedExpertsArgs& args) override {
    const absl::StatusOr<const ExpertTable*> table = expert_tables_.Of(args.experts);
    if (!table.ok()) {
      AsCuda(stream).Note(table.status());
      return;
    }
    for (const ExpertPart& part : (*table)->parts()) {
      if (part.maps.size > 0) {
        AsCuda(stream).Note(fp8_ops_->GroupedExperts(On(stream), part, args));
      } else {
        TESSERA_CHECK(args.x.dtype == DType::kF32);
        cuda::GroupedExperts(On(stream), part, args);
      }
    }
  }
  void CombineExperts(Stream& stream, TensorView y, TensorView row_of_slot,
                      TensorView weights, TensorView out) override {
    cuda::CombineExperts(On(stream), y, row_of_slot, weights, out);
  }
  void PackSlots(Stream& stream, TensorView row_of_slot, TensorView packed) override {
    cuda::PackSlots(On(stream), row_of_slot, packed);
  }
  void LocateReturns(Stream& stream, const LocateReturnsArgs& args) override {
    cuda::LocateReturns(On(stream), args);
  }

  void DecodeEngramRows(Stream& stream, TensorView rows, DType format, int64_t width,
                        TensorView out) override {
    cuda::DecodeEngramRows(On(stream), rows, format, width, out);
  }
  void EngramGate(Stream& stream, const EngramGateArgs& args) override {
    cuda::EngramGate(On(stream), args);
  }
  void EngramConv(Stream& stream, const EngramConvArgs& args) override {
    cuda::EngramConv(On(stream), args);
  }

 private:
  const DeviceBackendOptions options_;
  const std::shared_ptr<GpuMachine> machine_;
  const std::unique_ptr<GpuStream> setup_;  // zeroes memory, uploads tables of experts
  const std::unique_ptr<Fp8Ops> fp8_ops_;   // of numerics fp8-g128, otherwise null
  ExpertTables expert_tables_;
};

}  // namespace

DeviceBackendOptions GpuBackendOptions(int device, std::string_view numerics,
                                       std::string isa) {
  // A prefill of 2048 tokens with 8 experts each of V3's width goes in one turn.
  constexpr size_t kWorkspaceBytes = size_t{512} << 20;
  return {.device = device,
          .numerics_id = fmt::format("cuda/{}", numerics),
          .isa = std::move(isa),
          .fp8_workspace_bytes = numerics == "fp8-g128" ? kWorkspaceBytes : 0};
}

absl::StatusOr<std::unique_ptr<KernelBackend>> CreateDeviceBackend(
    std::shared_ptr<GpuMachine> machine, DeviceBackendOptions options) {
  TESSERA_ASSIGN_OR_RETURN(auto setup, GpuStream::Create(machine, options.device));
  if (options.registrations == nullptr) {
    options.registrations = HostRegistrations::Create(machine);
  }
  std::unique_ptr<Fp8Ops> fp8_ops;
  if (options.fp8_workspace_bytes > 0) {
    TESSERA_ASSIGN_OR_RETURN(fp8_ops, Fp8Ops::Create(machine, options.device, *setup,
                                                     options.fp8_workspace_bytes));
  }
  return std::make_unique<DeviceBackend>(std::move(options), std::move(machine),
                                         std::move(setup), std::move(fp8_ops));
}

}  // namespace tessera::kernels::cuda
