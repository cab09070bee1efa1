#include "kernels/engram_reader.h"

#include <utility>
#include <vector>

#include "common/check.h"
#include "common/status_macros.h"
#include "kernels/runtime/device_buffer.h"
#include "kernels/tensor_view.h"

namespace tessera::kernels {
namespace {

// The host gathers all rows, and an upload follows.
class UploadedRows final : public EngramReader {
 public:
  explicit UploadedRows(KernelBackend* backend) : backend_(backend) {}

  absl::Status AddTable(const EngramReaderTable& table) override {
    Table made;
    made.row_bytes = table.row_bytes;
    made.landing.resize(static_cast<size_t>(table.max_rows * table.row_bytes));
    TESSERA_ASSIGN_OR_RETURN(made.device, backend_->Allocate(made.landing.size()));
    tables_.push_back(std::move(made));
    return absl::OkStatus();
  }

  absl::StatusOr<std::span<std::byte>> Begin(size_t table, std::span<const uint32_t> ids,
                                             absl::Time /*deadline*/) override {
    Table& of = tables_[table];
    of.step_bytes = ids.size() * static_cast<size_t>(of.row_bytes);
    of.stream = nullptr;
    of.has_arrived = false;
    TESSERA_CHECK(of.step_bytes <= of.landing.size());
    return std::span(of.landing).first(of.step_bytes);
  }
  absl::StatusOr<const void*> Enqueue(Stream& stream, size_t table) override {
    Table& of = tables_[table];
    of.stream = &stream;
    Upload(of);
    return of.device.data();
  }
  void Arrived(size_t table) override {
    tables_[table].has_arrived = true;
    Upload(tables_[table]);
  }
  void Abandon(size_t /*table*/) override {}
  absl::Status Check() override { return absl::OkStatus(); }

 private:
  struct Table {
    int64_t row_bytes = 0;
    std::vector<std::byte> landing;
    DeviceBuffer device;
    size_t step_bytes = 0;
    Stream* stream = nullptr;
    bool has_arrived = false;
  };

  // Once both are there: the rows and the stream.
  void Upload(const Table& of) {
    if (of.stream != nullptr && of.has_arrived) {
      backend_->Upload(*of.stream, of.landing.data(),
                       TensorView(of.device.data(), DType::kU8,
                                  {static_cast<int64_t>(of.step_bytes)}));
    }
  }

  KernelBackend* const backend_;
  std::vector<Table> tables_;
};

}  // namespace

std::unique_ptr<EngramReader> CreateEngramReader(KernelBackend* backend, Clock* clock) {
  if (auto* const factory = dynamic_cast<EngramReaderFactory*>(backend)) {
    return factory->CreateEngramReader(clock);
  }
  return CreateUploadedRows(backend);
}

std::unique_ptr<EngramReader> CreateUploadedRows(KernelBackend* backend) {
  return std::make_unique<UploadedRows>(backend);
}

}  // namespace tessera::kernels
