// Routes that the official services have and this server does not: their clients get an
// error that says why and what there is instead, not a bare 404.
#ifndef TESSERA_COORDINATOR_API_UNSUPPORTED_ROUTES_H_
#define TESSERA_COORDINATOR_API_UNSUPPORTED_ROUTES_H_

#include <span>
#include <string_view>

#include "coordinator/api/errors.h"

namespace tessera::coordinator {

struct UnsupportedRoute {
  std::string_view path;    // and everything below it; a label of metrics
  std::string_view reason;  // "this server …"
};

// All of them.
std::span<const UnsupportedRoute> UnsupportedRoutes();

// The row of `path`, which no route serves, or null where nobody knows such a path.
const UnsupportedRoute* FindUnsupportedRoute(std::string_view path);

// 404 unsupported_endpoint, which no client repeats.
ApiError UnsupportedRouteError(const UnsupportedRoute& route);

}  // namespace tessera::coordinator

#endif  // TESSERA_COORDINATOR_API_UNSUPPORTED_ROUTES_H_
