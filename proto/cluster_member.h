// ClusterMember: what a worker or an Engram shard says about itself when it registers.
// Plain struct; the wire form is in cluster.proto.
#ifndef TESSERA_PROTO_CLUSTER_MEMBER_H_
#define TESSERA_PROTO_CLUSTER_MEMBER_H_

#include <cstdint>
#include <string>
#include <vector>

namespace tessera::proto {

enum class ClusterRole { kWorker, kEngram };

// Something that members must be started alike with: {"block-size", "16"}.
struct MemberSetting {
  std::string name;
  std::string value;

  bool operator==(const MemberSetting&) const = default;
};

struct ClusterMember {
  ClusterRole role = ClusterRole::kWorker;
  uint32_t rank = 0;    // of a worker in its group; of an Engram shard its index
  uint64_t epoch = 0;   // of the group that a worker was started for; 0 for a shard
  std::string address;  // of its StepServer or Engram service
  std::string build_version;
  std::string numerics_id;   // workers only
  std::string model_digest;  // of the checkpoint
  std::vector<std::string>
      table_digests;  // of the Engram tables that it serves or expects
  // Of a worker: what else changes bits or the layout of memory.
  std::vector<MemberSetting> settings = {};

  bool operator==(const ClusterMember&) const = default;
};

}  // namespace tessera::proto

#endif  // TESSERA_PROTO_CLUSTER_MEMBER_H_
