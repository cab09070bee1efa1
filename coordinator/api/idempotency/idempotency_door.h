// AdmitOnce: what a route that generates does with the header Idempotency-Key, whatever
// its dialect. It reads the key and asks the store; the route runs, or does not.
#ifndef TESSERA_COORDINATOR_API_IDEMPOTENCY_IDEMPOTENCY_DOOR_H_
#define TESSERA_COORDINATOR_API_IDEMPOTENCY_IDEMPOTENCY_DOOR_H_

#include <functional>
#include <memory>
#include <string_view>

#include "common/clock.h"
#include "coordinator/api/api_observer.h"
#include "coordinator/api/errors.h"
#include "coordinator/api/http_message.h"
#include "coordinator/api/idempotency/idempotency_store.h"

namespace tessera::coordinator {

// An error as the dialect of the route words it.
using RefusalText = std::function<HttpResponse(const ApiError&)>;

// What the route has to answer through: `writer` itself without the header, one that
// keeps the answer for the first request with a key. Null: the route has nothing to do,
// because the request was answered (as before, or by an error), or waits for the answer
// of another that runs. `path` is the route's; `clock` must outlive every writer.
// `observer` hears of every request with the header.
std::shared_ptr<ResponseWriter> AdmitOnce(const std::shared_ptr<IdempotencyStore>& store,
                                          Clock* clock, ApiObserver* observer,
                                          std::string_view path,
                                          const HttpRequest& request,
                                          const RefusalText& refusal,
                                          std::shared_ptr<ResponseWriter> writer);

}  // namespace tessera::coordinator

#endif  // TESSERA_COORDINATOR_API_IDEMPOTENCY_IDEMPOTENCY_DOOR_H_
