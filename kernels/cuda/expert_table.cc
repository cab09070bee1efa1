#include "kernels/cuda/expert_table.h"

#include <algorithm>
#include <iterator>
#include <tuple>
#include <utility>

#include "common/check.h"
#include "common/status_macros.h"
#include "kernels/cuda/cuda_ops.h"
#include "kernels/cuda/products/weight_tile_map.h"
#include "kernels/fp8_products.h"

namespace tessera::kernels::cuda {
namespace {

auto FieldsOf(const WeightView& w) {
  return std::tie(w.data, w.dtype, w.rows, w.cols, w.row_bytes, w.scales, w.scale_dtype,
                  w.scale_stride, w.block_rows, w.block_cols, w.row_offset, w.col_offset);
}

auto FormatOf(const DeviceWeight& w) {
  return std::tie(w.dtype, w.scale_dtype, w.rows, w.cols, w.row_bytes, w.scale_stride,
                  w.block_rows, w.block_cols, w.row_offset, w.col_offset, w.values.size,
                  w.scales.size);
}

bool HaveOneFormat(const ExpertPart& a, const ExpertPart& b) {
  return FormatOf(a.gate) == FormatOf(b.gate) && FormatOf(a.up) == FormatOf(b.up) &&
         FormatOf(a.down) == FormatOf(b.down);
}

// Puts the places of the weight's spans at `addresses` and takes them out of it.
void TakeAddresses(DeviceWeight& weight, const uint8_t** addresses) {
  addresses[0] = std::exchange(weight.values.data, nullptr);
  addresses[1] = std::exchange(weight.scales.data, nullptr);
}

}  // namespace

absl::StatusOr<std::unique_ptr<ExpertTable>> ExpertTable::Create(
    std::shared_ptr<GpuMachine> machine, int device, GpuStream& stream,
    std::span<const ExpertWeights> experts, bool with_maps) {
  std::unique_ptr<ExpertTable> table(new ExpertTable(std::move(machine), experts));
  const size_t in_part = experts.size() * ExpertPart::kAddresses;
  std::vector<const uint8_t*> addresses;
  for (size_t e = 0; e < experts.size(); ++e) {
    TESSERA_CHECK_LE(experts[e].gate.rows, kMaxExpertWidth);
    ExpertPart part;
    part.gate = WeightOf(experts[e].gate);
    part.up = WeightOf(experts[e].up);
    part.down = WeightOf(experts[e].down);
    const uint8_t* own[ExpertPart::kAddresses];
    TakeAddresses(part.gate, own);
    TakeAddresses(part.up, own + 2);
    TakeAddresses(part.down, own + 4);
    const auto found =
        std::find_if(table->parts_.begin(), table->parts_.end(),
                     [&](const ExpertPart& other) { return HaveOneFormat(part, other); });
    const auto index = static_cast<size_t>(found - table->parts_.begin());
    if (found == table->parts_.end()) {
      table->parts_.push_back(part);
      table->first_of_part_.push_back(e);
      addresses.resize(addresses.size() + in_part, nullptr);
    }
    std::copy(std::begin(own), std::end(own),
              addresses.begin() +
                  static_cast<int64_t>(index * in_part + e * ExpertPart::kAddresses));
  }
  if (!addresses.empty()) {
    TESSERA_RETURN_IF_ERROR(table->UploadAddresses(device, stream, addresses));
  }
  if (with_maps) {
    TESSERA_RETURN_IF_ERROR(table->UploadMaps(device, stream));
  }
  return table;
}

absl::Status ExpertTable::UploadAddresses(int device, GpuStream& stream,
                                          const std::vector<const uint8_t*>& addresses) {
  const size_t bytes = addresses.size() * sizeof(addresses[0]);
  TESSERA_ASSIGN_OR_RETURN(memory_, machine_->Malloc(device, bytes));
  TESSERA_RETURN_IF_ERROR(stream.MemcpyAsync(memory_, addresses.data(), bytes));
  TESSERA_RETURN_IF_ERROR(stream.Synchronize());
  const auto* begin = static_cast<const uint8_t* const*>(memory_);
  const size_t in_part = experts_.size() * ExpertPart::kAddresses;
  for (ExpertPart& part : parts_) {
    part.addresses = {begin, static_cast<int64_t>(in_part)};
    begin += in_part;
  }
  return absl::OkStatus();
}

absl::Status ExpertTable::UploadMaps(int device, GpuStream& stream) {
  std::vector<GpuTileMap> maps(experts_.size() * ExpertPart::kMatrices);
  bool any = false;
  for (size_t e = 0; e < experts_.size(); ++e) {
    if (!IsFp8Expert(experts_[e])) {
      continue;
    }
    any = true;
    const WeightView* const matrices[] = {&experts_[e].gate, &experts_[e].up,
                                          &experts_[e].down};
    for (size_t i = 0; i < std::size(matrices); ++i) {
      TESSERA_ASSIGN_OR_RETURN(maps[e * ExpertPart::kMatrices + i],
                               WeightTileMap(*matrices[i]));
    }
  }
  if (!any) {
    return absl::OkStatus();
  }
  const size_t bytes = maps.size() * sizeof(maps[0]);
  TESSERA_ASSIGN_OR_RETURN(maps_, machine_->Malloc(device, bytes));
  TESSERA_RETURN_IF_ERROR(stream.MemcpyAsync(maps_, maps.data(), bytes));
  TESSERA_RETURN_IF_ERROR(stream.Synchronize());
  for (size_t i = 0; i < parts_.size(); ++i) {
    if (IsFp8Expert(experts_[first_of_part_[i]])) {
      parts_[i].maps = {static_cast<const GpuTileMap*>(maps_), std::ssize(maps)};
    }
  }
  return absl::OkStatus();
}

ExpertTable::~ExpertTable() {
  for (void* const memory : {memory_, maps_}) {
    if (memory != nullptr) {
      static_cast<void>(machine_->Free(memory));  // its own: a failure is one of an op
    }
  }
}

bool ExpertTable::IsOf(std::span<const ExpertWeights> experts) const {
  return std::equal(experts.begin(), experts.end(), experts_.begin(), experts_.end(),
                    [](const ExpertWeights& a, const ExpertWeights& b) {
                      return FieldsOf(a.gate) == FieldsOf(b.gate) &&
                             FieldsOf(a.up) == FieldsOf(b.up) &&
                             FieldsOf(a.down) == FieldsOf(b.down);
                    });
}

absl::StatusOr<const ExpertTable*> ExpertTables::Of(
    std::span<const ExpertWeights> experts) {
  const auto found = tables_.find(experts.data());
  if (found != tables_.end() && found->second->IsOf(experts)) {
    return found->second.get();
  }
  if (found == tables_.end() && tables_.size() >= kMaxTables) {
    tables_.clear();
  }
  TESSERA_ASSIGN_OR_RETURN(
      std::unique_ptr<ExpertTable> table,
      ExpertTable::Create(machine_, device_, *stream_, experts, with_maps_));
  std::unique_ptr<ExpertTable>& place = tables_[experts.data()];
  place = std::move(table);
  return place.get();
}

}  // namespace tessera::kernels::cuda
