// The gRPC handlers of an Engram shard: authentication, conversion, nothing else. All
// work is short and done on the thread that received the call.
#ifndef TESSERA_ENGRAM_STORE_SERVICE_ENGRAM_SERVICE_H_
#define TESSERA_ENGRAM_STORE_SERVICE_ENGRAM_SERVICE_H_

#include <memory>
#include <string>
#include <string_view>

#include "engram_store/service/engram_shard.h"

namespace grpc {
class Service;
}  // namespace grpc

namespace tessera::engram_store {

// A service to register with a gRPC server; thread-safe. An empty token asks for none.
std::unique_ptr<grpc::Service> MakeEngramService(std::shared_ptr<const EngramShard> shard,
                                                 std::string_view auth_token);

}  // namespace tessera::engram_store

#endif  // TESSERA_ENGRAM_STORE_SERVICE_ENGRAM_SERVICE_H_
