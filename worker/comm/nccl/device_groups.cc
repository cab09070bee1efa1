#include "worker/comm/nccl/device_groups.h"

#include <array>
#include <cstring>
#include <utility>

#include "common/status.h"
#include "common/status_macros.h"
#include "worker/comm/nccl/nccl_group.h"

namespace tessera::worker {
namespace {

using kernels::DeviceGroupId;
using kernels::DeviceIdentity;

struct Record {
  std::array<char, 4> magic = {};
  int32_t rank = 0;
  int32_t size = 0;
  uint32_t has_id = 0;
  uint64_t epoch = 0;
  uint64_t name_hash = 0;
  DeviceIdentity device = {};
  DeviceGroupId id = {};
};
static_assert(sizeof(Record) == kGroupRecordBytes);

constexpr std::array<char, 4> kMagic = {'T', 'D', 'G', '1'};

uint64_t HashOf(std::string_view name) {
  uint64_t hash = 14695981039346656037U;
  for (const char c : name) {
    hash = (hash ^ static_cast<uint8_t>(c)) * 1099511628211U;
  }
  return hash;
}

// Every rank's, in rank order.
absl::StatusOr<std::vector<Record>> ExchangeRecords(Communicator& control,
                                                    const Record& own) {
  const auto size = static_cast<size_t>(control.size());
  const std::vector<Record> sent(size, own);
  std::vector<Record> records(size);
  const std::vector<int64_t> counts(size, sizeof(Record));
  std::vector<int64_t> received(size, 0);
  TESSERA_RETURN_IF_ERROR(control.AllToAllV(std::as_bytes(std::span(sent)), counts,
                                            std::as_writable_bytes(std::span(records)),
                                            received));
  for (size_t rank = 0; rank < size; ++rank) {
    if (received[rank] != counts[rank]) {
      return DataLossF("{}: rank {} sent {} bytes of itself, expected {}", control.name(),
                       rank, received[rank], counts[rank]);
    }
  }
  return records;
}

absl::Status CheckRecord(const Communicator& control, int rank, const Record& own,
                         const Record& of_rank) {
  if (of_rank.magic != kMagic || of_rank.name_hash != own.name_hash ||
      of_rank.size != own.size || of_rank.rank != rank ||
      of_rank.has_id > (rank == 0 ? 1U : 0U)) {
    return DataLossF(
        "{}: what rank {} says of itself is of rank {} of {}, of another group or none",
        control.name(), rank, of_rank.rank, of_rank.size);
  }
  if (of_rank.epoch != own.epoch) {
    return StatusF(absl::StatusCode::kFailedPrecondition,
                   "{}: rank {} is of epoch {}, rank {} of epoch {}", control.name(),
                   rank, of_rank.epoch, control.rank(), own.epoch);
  }
  return absl::OkStatus();
}

bool ShareADevice(std::span<const Record> records) {
  for (size_t i = 0; i < records.size(); ++i) {
    for (size_t j = 0; j < i; ++j) {
      if (records[i].device == records[j].device) {
        return true;
      }
    }
  }
  return false;
}

}  // namespace

absl::StatusOr<std::vector<std::unique_ptr<Communicator>>> ConnectLocalRanks(
    std::string_view name, kernels::LocalDevices& devices, std::span<const int> ranks,
    const CommOptions& options, Clock* clock) {
  TESSERA_ASSIGN_OR_RETURN(const DeviceGroupId id, devices.NewGroupId());
  std::vector<std::unique_ptr<kernels::DeviceCollectives>> group;
  for (const int local : ranks) {
    TESSERA_ASSIGN_OR_RETURN(auto rank,
                             devices.JoinGroup(id, static_cast<int>(ranks.size()),
                                               static_cast<int>(group.size()), local));
    group.push_back(std::move(rank));
  }
  return CreateNcclGroup(name, std::move(group), options, clock);
}

absl::StatusOr<std::optional<DeviceGroupId>> AgreeOnGroupId(
    Communicator& control, uint64_t epoch, const DeviceIdentity& device,
    absl::FunctionRef<absl::StatusOr<DeviceGroupId>()> make_id) {
  Record own = {.magic = kMagic,
                .rank = control.rank(),
                .size = control.size(),
                .epoch = epoch,
                .name_hash = HashOf(control.name()),
                .device = device};
  absl::Status made;
  if (control.rank() == 0) {
    const absl::StatusOr<DeviceGroupId> id = make_id();
    made = id.status();
    own.has_id = id.ok() ? 1 : 0;
    own.id = id.ok() ? *id : DeviceGroupId();
  }
  TESSERA_ASSIGN_OR_RETURN(const std::vector<Record> records,
                           ExchangeRecords(control, own));
  TESSERA_RETURN_IF_ERROR(made);
  for (int rank = 0; rank < control.size(); ++rank) {
    TESSERA_RETURN_IF_ERROR(
        CheckRecord(control, rank, own, records[static_cast<size_t>(rank)]));
  }
  if (records[0].has_id == 0) {
    return StatusF(absl::StatusCode::kUnavailable, "{}: rank 0 made no id",
                   control.name());
  }
  if (ShareADevice(records)) {
    return std::optional<DeviceGroupId>();
  }
  return records[0].id;
}

absl::StatusOr<std::unique_ptr<Communicator>> ConnectProcessRank(
    Communicator& control, const ProcessRank& own, const CommOptions& options,
    Clock* clock) {
  TESSERA_ASSIGN_OR_RETURN(
      const std::optional<DeviceGroupId> id,
      AgreeOnGroupId(control, own.epoch, own.devices->identity(own.local),
                     [&] { return own.devices->NewGroupId(); }));
  if (!id.has_value()) {
    return std::unique_ptr<Communicator>();
  }
  std::vector<std::unique_ptr<kernels::DeviceCollectives>> ranks(1);
  TESSERA_ASSIGN_OR_RETURN(
      ranks[0], own.devices->JoinGroup(*id, control.size(), control.rank(), own.local));
  TESSERA_ASSIGN_OR_RETURN(
      auto group, CreateNcclGroup(control.name(), std::move(ranks), options, clock));
  return std::move(group[0]);
}

}  // namespace tessera::worker
