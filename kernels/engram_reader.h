// EngramReader: how the packed rows of a step's Engram lookups come into the memory of a
// backend's device. A device may read them itself, from the memory of this host that
// holds the table; otherwise the host gathers them, from wherever they are, to a place
// that the reader names, and the reader brings them on. The bytes are the same.
//
// A table's step: Begin; Enqueue and, where Begin named a place, Arrived or Abandon, in
// any order; then whatever uses the rows. Check after the step's last Synchronize.
#ifndef TESSERA_KERNELS_ENGRAM_READER_H_
#define TESSERA_KERNELS_ENGRAM_READER_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"

#include "common/clock.h"
#include "kernels/engram_table_view.h"
#include "kernels/kernel_backend.h"
#include "kernels/runtime/stream.h"

namespace tessera::kernels {

struct EngramReaderTable {
  int64_t row_bytes = 0;
  int64_t max_rows = 0;  // of a step
  // The whole table, where it lies in memory of this process that outlives the reader.
  std::optional<EngramTableView> view;
};

// Step thread only. It goes before its backend, its tables and the streams it was given.
class EngramReader {
 public:
  virtual ~EngramReader() = default;

  // Start-up. Tables are numbered in the order of these calls. kInvalidArgument: a view
  // that CheckTableView refuses; kResourceExhausted.
  virtual absl::Status AddTable(const EngramReaderTable& table) = 0;

  // Begins a step's rows: ids of the whole table, the i-th of column i mod C, at most
  // max_rows; they must stay until Check. Returns where the host has to gather them in
  // this order, row_bytes each; empty: the device reads them itself. kDeadlineExceeded:
  // the memory of the step before last is still in use.
  virtual absl::StatusOr<std::span<std::byte>> Begin(size_t table,
                                                     std::span<const uint32_t> ids,
                                                     absl::Time deadline) = 0;
  // Where the rows are on the device, for work of `stream` that is enqueued after this
  // call and after Arrived, until the table's next Begin. The same place at each step, so
  // that a graph may read there. Does not wait.
  virtual absl::StatusOr<const void*> Enqueue(Stream& stream, size_t table) = 0;
  // The host has gathered them. No-op where the device reads them.
  virtual void Arrived(size_t table) = 0;
  // They will not come, or not be used, and nobody writes them any more: the stream goes
  // on with what is no row, and the step must fail. No-op without a Begin.
  virtual void Abandon(size_t table) = 0;

  // After the streams were synchronised: kInternal, naming it, for an id of this step
  // that none of its column's rows has.
  virtual absl::Status Check() = 0;
};

// What a backend implements, beside KernelBackend, whose device has a reader of its own.
class EngramReaderFactory {
 public:
  virtual ~EngramReaderFactory() = default;
  // `clock` must outlive it.
  virtual std::unique_ptr<EngramReader> CreateEngramReader(Clock* clock) = 0;
};

// The backend's own, or one that uploads. Both must outlive it.
std::unique_ptr<EngramReader> CreateEngramReader(KernelBackend* backend, Clock* clock);
// For any backend: the host gathers all rows, and KernelBackend::Upload follows. The
// backend must outlive it.
std::unique_ptr<EngramReader> CreateUploadedRows(KernelBackend* backend);

}  // namespace tessera::kernels

#endif  // TESSERA_KERNELS_ENGRAM_READER_H_
