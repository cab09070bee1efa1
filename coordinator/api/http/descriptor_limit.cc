#include "coordinator/api/http/descriptor_limit.h"

#include <algorithm>

#include <sys/resource.h>

namespace tessera::coordinator {

int64_t ReserveConnections(int64_t connections) {
  const auto wanted = static_cast<rlim_t>(connections + kReservedDescriptors);
  rlimit limit = {};
  if (::getrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur >= wanted) {
    return connections;  // also where it is unlimited: RLIM_INFINITY is the largest value
  }
  limit.rlim_cur = std::min(wanted, limit.rlim_max);
  ::setrlimit(RLIMIT_NOFILE, &limit);
  ::getrlimit(RLIMIT_NOFILE, &limit);
  const auto room = static_cast<int64_t>(limit.rlim_cur) - kReservedDescriptors;
  return std::clamp<int64_t>(room, 1, connections);
}

}  // namespace tessera::coordinator
