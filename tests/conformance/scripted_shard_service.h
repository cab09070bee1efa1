// ScriptedShard: an Engram shard on loopback that misbehaves on command: it holds its
// answers back, or sends rows that their checksum does not fit. For tests of what clients
// make of it; handshake and health are those of a good shard.
#ifndef TESSERA_TESTS_CONFORMANCE_SCRIPTED_SHARD_SERVICE_H_
#define TESSERA_TESTS_CONFORMANCE_SCRIPTED_SHARD_SERVICE_H_

#include <cstddef>
#include <memory>
#include <string>

#include "engram_store/service/engram_shard.h"

namespace tessera::engram_store {

// Thread-safe. Its end releases what it holds.
class ScriptedShard {
 public:
  // Serves at once; a port that cannot be bound ends the test program.
  static std::unique_ptr<ScriptedShard> Create(std::shared_ptr<const EngramShard> shard);
  virtual ~ScriptedShard() = default;

  virtual std::string address() const = 0;

  // From now on lookups get no answer until Release.
  virtual void Hold() = 0;
  // Blocks until `count` lookups are held.
  virtual void AwaitHeld(size_t count) = 0;
  // Answers what is held, and again everything at once.
  virtual void Release() = 0;

  // From now on one bit of every answer's rows is turned after its checksum was made.
  virtual void Corrupt() = 0;
};

}  // namespace tessera::engram_store

#endif  // TESSERA_TESTS_CONFORMANCE_SCRIPTED_SHARD_SERVICE_H_
