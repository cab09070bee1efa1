// The number of file descriptors that this process may open: raised as far as the system
// allows, because the usual soft limit of 1024 is less than the connections of one
// server.
#ifndef TESSERA_COORDINATOR_API_HTTP_DESCRIPTOR_LIMIT_H_
#define TESSERA_COORDINATOR_API_HTTP_DESCRIPTOR_LIMIT_H_

#include <cstdint>

namespace tessera::coordinator {

// Descriptors that connections leave to everything else: weights, logs, workers, gRPC.
inline constexpr int64_t kReservedDescriptors = 512;

// Raises the process's soft limit so that `connections` sockets and the reserve fit, and
// returns for how many connections there is room: `connections`, or fewer where the hard
// limit is too low, at least one. Never lowers the limit.
int64_t ReserveConnections(int64_t connections);

}  // namespace tessera::coordinator

#endif  // TESSERA_COORDINATOR_API_HTTP_DESCRIPTOR_LIMIT_H_
