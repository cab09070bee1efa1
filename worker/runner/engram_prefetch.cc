#include "worker/runner/engram_prefetch.h"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"

#include "common/check.h"
#include "common/log.h"
#include "common/status.h"
#include "common/status_macros.h"
#include "engram_store/client/engram_source.h"
#include "kernels/tensor_view.h"
#include "model/config/model_config.h"
#include "worker/layers/step_context.h"
#include "worker/runner/engram_table_views.h"

namespace tessera::worker {

using kernels::DType;
using kernels::TensorView;

namespace {

absl::Status CheckTables(const model::EngramConfig& config,
                         const engram_store::EngramHash& hash,
                         std::span<const engram_store::TableInfo> tables) {
  if (tables.size() != config.layer_ids.size()) {
    return InvalidArgumentF("engram source has {} tables, the model has {} engram layers",
                            tables.size(), config.layer_ids.size());
  }
  for (size_t i = 0; i < tables.size(); ++i) {
    const engram_store::TableInfo& table = tables[i];
    const uint64_t rows = hash.num_rows(static_cast<int64_t>(i));
    if (table.layer_id != config.layer_ids[i] || table.num_rows != rows ||
        table.width != config.head_dim || table.format != tables[0].format) {
      return InvalidArgumentF(
          "engram table {}: layer {}, {} rows of {} values; expected layer {}, {} rows "
          "of "
          "{}, one format",
          i, table.layer_id, table.num_rows, table.width, config.layer_ids[i], rows,
          config.head_dim);
    }
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::unique_ptr<EngramPrefetch>> EngramPrefetch::Create(
    const model::ModelConfig& config, const Options& options,
    const engram_store::EngramHash* hash, engram_store::EngramSource* source,
    kernels::KernelBackend* backend, Clock* clock) {
  TESSERA_CHECK(config.engram.has_value());
  TESSERA_RETURN_IF_ERROR(CheckTables(*config.engram, *hash, source->tables()));
  std::unique_ptr<EngramPrefetch> prefetch(new EngramPrefetch(
      hash, source, kernels::CreateEngramReader(backend, clock), clock, options.timeout));
  prefetch->columns_ = hash->num_columns();
  prefetch->max_ngram_ = config.engram->max_ngram;
  const int64_t max_rows = options.max_tokens * prefetch->columns_;
  for (size_t i = 0; i < source->tables().size(); ++i) {
    Table table;
    table.row_bytes = source->tables()[i].row_bytes;
    table.row_ids.resize(static_cast<size_t>(max_rows));
    TESSERA_RETURN_IF_ERROR(
        prefetch->reader_->AddTable({.row_bytes = table.row_bytes,
                                     .max_rows = max_rows,
                                     .view = ViewOf(source->local_shards(i))}));
    prefetch->tables_.push_back(std::move(table));
  }
  return prefetch;
}

void EngramPrefetch::Begin() {
  num_tokens_ = 0;
  wait_ns_ = 0;
}

void EngramPrefetch::Add(std::span<const int32_t> sequence, int64_t begin) {
  // The lookback needs N-1 ids; earlier ones are cut off so that the cost follows the new
  // tokens.
  const int64_t first = std::max<int64_t>(0, begin - (max_ngram_ - 1));
  const auto window = sequence.subspan(static_cast<size_t>(first));
  const auto count = static_cast<int64_t>(sequence.size()) - begin;
  for (size_t i = 0; i < tables_.size(); ++i) {
    const std::span<uint32_t> rows =
        std::span<uint32_t>(tables_[i].row_ids)
            .subspan(static_cast<size_t>(num_tokens_ * columns_),
                     static_cast<size_t>(count * columns_));
    hash_->RowIds(static_cast<int64_t>(i), window, begin - first, first == 0, {}, rows);
  }
  num_tokens_ += count;
}

absl::Status EngramPrefetch::Issue() {
  deadline_ = clock_->Now() + timeout_;
  if (num_tokens_ == 0) {
    return absl::OkStatus();
  }
  for (size_t i = 0; i < tables_.size(); ++i) {
    Table& table = tables_[i];
    const std::span<const uint32_t> rows = row_ids(static_cast<int64_t>(i));
    TESSERA_ASSIGN_OR_RETURN(table.landing, reader_->Begin(i, rows, deadline_));
    if (table.landing.empty()) {
      source_->CountDeviceReads(i, rows.size());
    } else {
      table.pending = source_->Issue(i, rows, table.landing);
    }
    table.in_flight = true;
  }
  return absl::OkStatus();
}

absl::Status EngramPrefetch::AwaitSource(size_t index) {
  Table& table = tables_[index];
  const absl::Time begin = clock_->Now();
  const absl::Status status =
      table.landing.empty() ? absl::OkStatus() : source_->Wait(table.pending, deadline_);
  wait_ns_ += absl::ToInt64Nanoseconds(clock_->Now() - begin);
  table.in_flight = false;
  return status;
}

absl::StatusOr<TensorView> EngramPrefetch::Await(const StepContext& context,
                                                 int64_t index) {
  const auto at = static_cast<size_t>(index);
  TESSERA_CHECK(tables_[at].in_flight);
  // First, so that the stream need not wait for the host once the rows are there.
  TESSERA_ASSIGN_OR_RETURN(tables_[at].on_device, reader_->Enqueue(*context.stream, at));
  const absl::Status status = AwaitSource(at);
  if (!status.ok()) {
    reader_->Abandon(at);
    return WithContext(status, "engram rows");
  }
  reader_->Arrived(at);
  return DeviceRows(at, num_tokens_);
}

TensorView EngramPrefetch::DeviceRows(size_t index, int64_t num_tokens) const {
  const Table& table = tables_[index];
  TESSERA_CHECK(table.on_device != nullptr);
  return {const_cast<void*>(table.on_device),
          DType::kU8,
          {num_tokens, columns_ * table.row_bytes}};
}

absl::Status EngramPrefetch::Stage(const StepContext& context) {
  if (num_tokens_ == 0) {
    return absl::OkStatus();
  }
  for (size_t i = 0; i < tables_.size(); ++i) {
    TESSERA_RETURN_IF_ERROR(Await(context, static_cast<int64_t>(i)).status());
  }
  return absl::OkStatus();
}

absl::StatusOr<TensorView> EngramPrefetch::StagedRows::Await(const StepContext& context,
                                                             int64_t index) {
  return prefetch_->DeviceRows(static_cast<size_t>(index), context.num_tokens);
}

void EngramPrefetch::Drain() {
  for (size_t i = 0; i < tables_.size(); ++i) {
    if (tables_[i].in_flight) {
      const absl::Status status = AwaitSource(i);
      if (!status.ok()) {
        log::Warning("engram", "rows of an abandoned step did not arrive",
                     {{"error", status.ToString()}});
      }
      reader_->Abandon(i);
    }
  }
}

std::span<const uint32_t> EngramPrefetch::row_ids(int64_t index) const {
  return std::span<const uint32_t>(tables_[static_cast<size_t>(index)].row_ids)
      .first(static_cast<size_t>(num_tokens_ * columns_));
}

int64_t EngramPrefetch::num_rows() const {
  return num_tokens_ * columns_ * static_cast<int64_t>(tables_.size());
}

}  // namespace tessera::worker
