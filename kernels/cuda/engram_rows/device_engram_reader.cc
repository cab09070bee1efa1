#include "kernels/cuda/engram_rows/device_engram_reader.h"

#include <algorithm>
#include <cstring>
#include <utility>
#include <vector>

#include "common/check.h"
#include "common/log.h"
#include "common/status.h"
#include "common/status_macros.h"
#include "kernels/cuda/engram_rows/gather_rows.h"
#include "kernels/cuda/engram_rows/registered_table.h"
#include "kernels/cuda/engram_rows/staged_rows.h"
#include "kernels/cuda/primitives/device_flag.h"
#include "kernels/runtime/device_buffer.h"

namespace tessera::kernels::cuda {
namespace {

class DeviceEngramReader final : public EngramReader {
 public:
  DeviceEngramReader(std::shared_ptr<GpuMachine> machine,
                     std::shared_ptr<HostRegistrations> registrations,
                     DeviceEngramReaderOptions options, Clock* clock)
      : machine_(std::move(machine)),
        registrations_(std::move(registrations)),
        options_(std::move(options)),
        clock_(clock) {}

  absl::Status AddTable(const EngramReaderTable& table) override {
    Table made;
    made.row_bytes = static_cast<size_t>(table.row_bytes);
    made.max_rows = static_cast<size_t>(table.max_rows);
    const size_t staged_bytes =
        std::max(made.row_bytes, sizeof(uint32_t)) * std::max<size_t>(made.max_rows, 1);
    TESSERA_ASSIGN_OR_RETURN(
        made.staged, StagedRows::Create(machine_, {.bytes = staged_bytes}, clock_));
    TESSERA_ASSIGN_OR_RETURN(made.rows, Allocate(made.row_bytes * made.max_rows));
    if (table.view.has_value()) {
      TESSERA_RETURN_IF_ERROR(Register(*table.view, made));
    }
    tables_.push_back(std::move(made));
    return absl::OkStatus();
  }

  absl::StatusOr<std::span<std::byte>> Begin(size_t table, std::span<const uint32_t> ids,
                                             absl::Time deadline) override {
    Table& of = tables_[table];
    TESSERA_CHECK(ids.size() <= of.max_rows);
    of.generation = -1;
    of.was_read = false;
    TESSERA_ASSIGN_OR_RETURN(of.generation, of.staged->Begin(deadline));
    of.ids = ids;
    of.path = ChooseRowPath(of.place, std::ssize(ids), options_.limits);
    of.staged->Fill(of.generation);
    const std::span<std::byte> host = of.staged->host(of.generation);
    if (of.path == RowPath::kHostGathers) {
      return host.first(ids.size() * of.row_bytes);
    }
    if (!ids.empty()) {
      std::memcpy(host.data(), ids.data(), ids.size_bytes());
    }
    of.staged->Arrived(of.generation);
    return std::span<std::byte>();
  }

  absl::StatusOr<const void*> Enqueue(Stream& stream, size_t table) override {
    Table& of = tables_[table];
    GpuStream& gpu = options_.gpu_stream(stream);
    if (of.path == RowPath::kHostGathers) {
      TESSERA_RETURN_IF_ERROR(of.staged->Enqueue(
          gpu, of.generation, of.ids.size() * of.row_bytes, of.rows.data()));
    } else {
      TESSERA_RETURN_IF_ERROR(EnqueueRead(gpu, of));
      of.was_read = true;
    }
    TESSERA_RETURN_IF_ERROR(of.staged->Launched(gpu, of.generation));
    return of.rows.data();
  }

  void Arrived(size_t table) override {
    Table& of = tables_[table];
    if (of.path == RowPath::kHostGathers) {
      of.staged->Arrived(of.generation);
    }
  }
  void Abandon(size_t table) override {
    Table& of = tables_[table];
    if (of.generation >= 0) {
      of.staged->Abandon(of.generation);
    }
  }

  absl::Status Check() override {
    for (size_t i = 0; i < tables_.size(); ++i) {
      TESSERA_RETURN_IF_ERROR(CheckTable(i));
    }
    return absl::OkStatus();
  }

 private:
  struct Table {
    size_t row_bytes = 0;
    size_t max_rows = 0;
    TablePlace place = TablePlace::kElsewhere;
    std::unique_ptr<RegisteredTable> registered;
    DeviceBuffer ids_on_device;
    DeviceBuffer bad;                    // managed: the host reads it
    DeviceBuffer rows;                   // packed, of this step
    std::unique_ptr<StagedRows> staged;  // goes first: its copies write the others

    // Of the step.
    RowPath path = RowPath::kHostGathers;
    int generation = -1;
    std::span<const uint32_t> ids;
    bool was_read = false;  // by the device, and not checked so far
  };

  DeviceBuffer Owned(void* memory, size_t bytes) const {
    return DeviceBuffer(memory, bytes, [machine = machine_](void* data) {
      static_cast<void>(machine->Free(data));  // its own: a failure is one of a kernel
    });
  }
  absl::StatusOr<DeviceBuffer> Allocate(size_t bytes) const {
    TESSERA_ASSIGN_OR_RETURN(
        void* const memory,
        machine_->Malloc(options_.device, std::max<size_t>(bytes, 1)));
    return Owned(memory, bytes);
  }

  // Whether the host can gather the rows of a table that was refused so.
  static bool HostCanGather(const absl::Status& refused) {
    return absl::IsUnimplemented(refused) || absl::IsFailedPrecondition(refused) ||
           absl::IsResourceExhausted(refused);
  }

  absl::Status Register(const EngramTableView& view, Table& made) {
    auto registered =
        RegisteredTable::Create(machine_, *registrations_, options_.device, view);
    if (HostCanGather(registered.status())) {
      made.place = TablePlace::kHost;
      if (!std::exchange(was_refused_, true)) {
        log::Warning("engram", "a table is gathered by the host: it was not registered",
                     {{"device", options_.device},
                      {"table", tables_.size()},
                      {"reason", registered.status().ToString()}});
      }
      return absl::OkStatus();
    }
    TESSERA_RETURN_IF_ERROR(registered.status());
    made.registered = *std::move(registered);
    made.place = TablePlace::kRegistered;
    TESSERA_ASSIGN_OR_RETURN(made.ids_on_device,
                             Allocate(made.max_rows * sizeof(uint32_t)));
    TESSERA_ASSIGN_OR_RETURN(
        void* const bad, machine_->MallocManaged(options_.device, sizeof(BadRowWord)));
    made.bad = Owned(bad, sizeof(BadRowWord));
    return absl::OkStatus();
  }

  static absl::Status EnqueueRead(GpuStream& gpu, const Table& of) {
    auto* const ids = static_cast<uint32_t*>(of.ids_on_device.data());
    const auto count = std::ssize(of.ids);
    TESSERA_RETURN_IF_ERROR(
        of.staged->Enqueue(gpu, of.generation, of.ids.size_bytes(), ids));
    TESSERA_RETURN_IF_ERROR(gpu.MemsetAsync(of.bad.data(), 0, sizeof(BadRowWord)));
    GatherEngramRows(gpu, of.registered->on_device(), {ids, count},
                     {static_cast<uint8_t*>(of.rows.data()),
                      count * static_cast<int64_t>(of.row_bytes)},
                     {static_cast<BadRowWord*>(of.bad.data()), 1});
    return absl::OkStatus();
  }

  absl::Status CheckTable(size_t table) {
    Table& of = tables_[table];
    if (!std::exchange(of.was_read, false)) {
      return absl::OkStatus();
    }
    const uint32_t place =
        FirstBadPlace(*static_cast<const volatile BadRowWord*>(of.bad.data()));
    if (place == kNoBadPlace) {
      return absl::OkStatus();
    }
    const size_t num_columns =
        static_cast<size_t>(of.registered->on_device().columns.size);
    return InternalF("engram row {} at {} of table {} is none of column {}",
                     of.ids[place], place, table, place % num_columns);
  }

  const std::shared_ptr<GpuMachine> machine_;
  const std::shared_ptr<HostRegistrations> registrations_;
  const DeviceEngramReaderOptions options_;
  Clock* const clock_;
  std::vector<Table> tables_;
  bool was_refused_ = false;  // a registration
};

}  // namespace

absl::StatusOr<std::unique_ptr<EngramReader>> CreateDeviceEngramReader(
    std::shared_ptr<GpuMachine> machine, std::shared_ptr<HostRegistrations> registrations,
    DeviceEngramReaderOptions options, Clock* clock) {
  TESSERA_RETURN_IF_ERROR(GpuFlag::CheckSupport(*machine));
  return std::make_unique<DeviceEngramReader>(
      std::move(machine), std::move(registrations), std::move(options), clock);
}

}  // namespace tessera::kernels::cuda
