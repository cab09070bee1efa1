#include "proto/cluster_convert.h"

#include <string>

#include "common/status.h"

namespace tessera::proto {
namespace {

namespace wire = ::tessera::coordinator::v1;

}  // namespace

wire::Member ToWire(const ClusterMember& member) {
  wire::Member message;
  message.set_role(member.role == ClusterRole::kWorker ? wire::ROLE_WORKER
                                                       : wire::ROLE_ENGRAM);
  message.set_rank(member.rank);
  message.set_epoch(member.epoch);
  message.set_address(member.address);
  message.set_build_version(member.build_version);
  message.set_numerics_id(member.numerics_id);
  message.set_model_digest(member.model_digest);
  message.mutable_table_digests()->Add(member.table_digests.begin(),
                                       member.table_digests.end());
  for (const MemberSetting& setting : member.settings) {
    wire::Setting* out = message.add_settings();
    out->set_name(setting.name);
    out->set_value(setting.value);
  }
  return message;
}

absl::StatusOr<ClusterMember> FromWire(const wire::Member& message) {
  ClusterMember member;
  if (message.role() == wire::ROLE_WORKER) {
    member.role = ClusterRole::kWorker;
  } else if (message.role() == wire::ROLE_ENGRAM) {
    member.role = ClusterRole::kEngram;
  } else {
    return InvalidArgumentF("member role {}, expected worker or engram",
                            static_cast<int>(message.role()));
  }
  if (message.table_digests_size() > kMaxMemberTables) {
    return InvalidArgumentF("{} tables, expected at most {}",
                            message.table_digests_size(), kMaxMemberTables);
  }
  if (message.settings_size() > kMaxMemberSettings) {
    return InvalidArgumentF("{} settings, expected at most {}", message.settings_size(),
                            kMaxMemberSettings);
  }
  member.rank = message.rank();
  member.epoch = message.epoch();
  member.address = message.address();
  member.build_version = message.build_version();
  member.numerics_id = message.numerics_id();
  member.model_digest = message.model_digest();
  member.table_digests.assign(message.table_digests().begin(),
                              message.table_digests().end());
  for (const wire::Setting& setting : message.settings()) {
    member.settings.push_back({setting.name(), setting.value()});
  }
  const auto too_long = [](const std::string& text) {
    return text.size() > kMaxMemberText;
  };
  bool long_text = too_long(member.address) || too_long(member.build_version) ||
                   too_long(member.numerics_id) || too_long(member.model_digest);
  for (const std::string& digest : member.table_digests) {
    long_text = long_text || too_long(digest);
  }
  for (const MemberSetting& setting : member.settings) {
    long_text = long_text || too_long(setting.name) || too_long(setting.value);
  }
  if (long_text) {
    return InvalidArgumentF("a text field of more than {} bytes", kMaxMemberText);
  }
  return member;
}

}  // namespace tessera::proto
