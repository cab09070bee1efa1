// Between ClusterMember and its wire form.
#ifndef TESSERA_PROTO_CLUSTER_CONVERT_H_
#define TESSERA_PROTO_CLUSTER_CONVERT_H_

#include "absl/status/statusor.h"

#include "proto/cluster.pb.h"
#include "proto/cluster_member.h"

namespace tessera::proto {

// Limits of a registration: longest text field, and number of tables and of settings.
inline constexpr size_t kMaxMemberText = 256;
inline constexpr int kMaxMemberTables = 64;
inline constexpr int kMaxMemberSettings = 64;

::tessera::coordinator::v1::Member ToWire(const ClusterMember& member);

// kInvalidArgument for an unknown role, a text over kMaxMemberText, or too many tables or
// settings.
absl::StatusOr<ClusterMember> FromWire(const ::tessera::coordinator::v1::Member& message);

}  // namespace tessera::proto

#endif  // TESSERA_PROTO_CLUSTER_CONVERT_H_
