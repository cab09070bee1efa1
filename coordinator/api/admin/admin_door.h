// AdminDoor: the routes for people who run a server:
//
//   GET  /admin/v1/state    everything the console shows (AdminState)
//   GET  /admin/v1/experts  the load of every routed expert (ExpertsJson)
//   GET  /admin/v1/events   the same once a second, as server-sent events
//   POST /admin/v1/drain    takes no new requests, finishes those under way, stays warm
//   POST /admin/v1/undrain  takes requests again
//   GET  /, /console, …     the console's page, if it is switched on
//
// Who may: with keys configured, bearers of a key of the role admin. Without keys the
// server listens on loopback only; then the Host must be a loopback name, so that no web
// page gets in through a name that it rebinds. Changes need Content-Type application/json
// and, where a browser sends an Origin, the server's own: a foreign page can send
// neither.
#ifndef TESSERA_COORDINATOR_API_ADMIN_ADMIN_DOOR_H_
#define TESSERA_COORDINATOR_API_ADMIN_ADMIN_DOOR_H_

#include <memory>
#include <optional>
#include <span>
#include <string_view>

#include "common/clock.h"
#include "coordinator/api/access/key_info.h"
#include "coordinator/api/admin/admin_events.h"
#include "coordinator/api/admin/admin_state.h"
#include "coordinator/api/admin/console_page.h"
#include "coordinator/api/errors.h"
#include "coordinator/api/http_message.h"

namespace tessera::coordinator {

struct AdminOptions {
  ServerFacts facts;
  bool console = true;  // serve the page
  absl::Duration event_period = absl::Seconds(1);
};

// What it stands on; none is owned, all must outlive it.
struct AdminParts {
  Engine* engine = nullptr;
  EngineOperations* operations = nullptr;
  ActivityRecorder* activity = nullptr;
  ExpertLoads* experts = nullptr;  // null: of a model without any
  Clock* clock = nullptr;
};

// Thread-safe.
class AdminDoor {
 public:
  AdminDoor(const AdminOptions& options, const AdminParts& parts);

  // Paths under /admin/v1.
  static std::span<const std::string_view> Routes();

  // The route that `path` belongs to, for metrics: "/admin/v1/state"…, "/console";
  // nothing: another door's.
  std::optional<std::string_view> RouteOf(std::string_view path) const;

  // Answers a request for a path of its own. `key`: whose key the request bears; `open`:
  // the server has no keys. Never waits.
  void Handle(const HttpRequest& request, std::string_view path,
              const std::optional<KeyInfo>& key, bool open,
              std::shared_ptr<ResponseWriter> writer);

  // Ends the streams of events, and takes no further ones.
  void CloseStreams() { events_.Close(); }

 private:
  // Why the request may not go on.
  static std::optional<ApiError> Refuse(const HttpRequest& request,
                                        const std::optional<KeyInfo>& key, bool open);

  const bool console_;
  EngineOperations* const operations_;
  ExpertLoads* const experts_;
  ConsolePage page_;
  AdminState state_;
  AdminEvents events_;
};

}  // namespace tessera::coordinator

#endif  // TESSERA_COORDINATOR_API_ADMIN_ADMIN_DOOR_H_
