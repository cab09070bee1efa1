#include "kernels/cuda/engram_rows/registered_table.h"

#include <algorithm>
#include <cstring>
#include <numeric>
#include <span>

#include "common/status_macros.h"

namespace tessera::kernels::cuda {
namespace {

using ShardSpan = GlobalSpan<const uint8_t>;

template <typename T>
void Append(const std::vector<T>& values, std::vector<std::byte>& bytes) {
  const auto source = std::as_bytes(std::span(values));
  bytes.insert(bytes.end(), source.begin(), source.end());
}

}  // namespace

absl::StatusOr<std::unique_ptr<RegisteredTable>> RegisteredTable::Create(
    const std::shared_ptr<GpuMachine>& machine, HostRegistrations& registrations,
    int device, const EngramTableView& view) {
  TESSERA_RETURN_IF_ERROR(CheckTableView(view));
  std::unique_ptr<RegisteredTable> made(new RegisteredTable());
  // Rows are as aligned as all of their shards and their size; 16 is more than a kernel
  // asks for.
  int64_t alignment = std::gcd(int64_t{16}, view.row_bytes);
  std::vector<ShardSpan> shards;
  for (const std::span<const std::byte> rows : view.shards) {
    if (rows.empty()) {  // of columns with fewer rows than there are shards
      shards.push_back({});
      continue;
    }
    TESSERA_ASSIGN_OR_RETURN(auto registration, registrations.Acquire(rows));
    shards.push_back(registration->on_device());
    const auto address = reinterpret_cast<uintptr_t>(shards.back().data);
    alignment = std::gcd(alignment, static_cast<int64_t>(address % 16) + 16);
    made->registrations_.push_back(std::move(registration));
  }
  std::vector<DeviceEngramColumn> columns;
  for (const EngramColumn& column : view.columns) {
    columns.push_back({column.first_row, column.num_rows, column.shard_rows});
  }

  // Both of 16 bytes each, so that what follows is aligned.
  std::vector<std::byte> lists;
  Append(shards, lists);
  Append(columns, lists);
  Append(view.first_local, lists);
  TESSERA_ASSIGN_OR_RETURN(void* const memory, machine->Malloc(device, lists.size()));
  made->lists_ = DeviceBuffer(memory, lists.size(), [machine](void* data) {
    static_cast<void>(machine->Free(data));  // its own: a failure is one of a kernel
  });
  TESSERA_ASSIGN_OR_RETURN(const auto stream, GpuStream::Create(machine, device));
  TESSERA_RETURN_IF_ERROR(stream->MemcpyAsync(memory, lists.data(), lists.size()));
  TESSERA_RETURN_IF_ERROR(stream->Synchronize());

  static_assert(sizeof(ShardSpan) == 16 && sizeof(DeviceEngramColumn) == 16);
  auto* const first_shard = static_cast<const ShardSpan*>(memory);
  auto* const first_column =
      reinterpret_cast<const DeviceEngramColumn*>(first_shard + shards.size());
  auto* const first_place =
      reinterpret_cast<const uint32_t*>(first_column + columns.size());
  made->table_ = {.shards = {first_shard, std::ssize(shards)},
                  .columns = {first_column, std::ssize(columns)},
                  .first_local = {first_place, std::ssize(view.first_local)},
                  .row_bytes = view.row_bytes,
                  .alignment = alignment};
  return made;
}

}  // namespace tessera::kernels::cuda
