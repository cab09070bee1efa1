#include "coordinator/api/admin/admin_door.h"

#include <string>
#include <utility>

#include "common/log.h"
#include "coordinator/api/admin/admin_experts.h"

namespace tessera::coordinator {
namespace {

constexpr std::string_view kState = "/admin/v1/state";
constexpr std::string_view kExperts = "/admin/v1/experts";
constexpr std::string_view kEvents = "/admin/v1/events";
constexpr std::string_view kDrain = "/admin/v1/drain";
constexpr std::string_view kUndrain = "/admin/v1/undrain";
constexpr std::string_view kConsole = "/console";

ApiError ForbiddenError(std::string message) {
  return {403, "permission_error", "forbidden", "", std::move(message), std::nullopt};
}

// A Host header without its port.
std::string_view NameOf(std::string_view host) {
  if (host.starts_with('[')) {
    const size_t end = host.find(']');
    return end == std::string_view::npos ? host : host.substr(0, end + 1);
  }
  return host.substr(0, host.find(':'));
}

bool IsLoopbackName(std::string_view host) {
  const std::string_view name = NameOf(host);
  return name == "localhost" || name == "[::1]" ||
         (name.starts_with("127.") &&
          name.find_first_not_of("0123456789.") == std::string_view::npos);
}

// Whether a browser says that the page which sent this is another server's.
bool IsForeign(const HttpRequest& request) {
  const std::string_view origin = FindHeader(request.headers, "origin");
  if (origin.empty()) {
    return false;
  }
  const std::string_view host = FindHeader(request.headers, "host");
  return origin != "http://" + std::string(host) &&
         origin != "https://" + std::string(host);
}

HttpResponse JsonResponse(std::string body) {
  HttpResponse response;
  response.body = std::move(body);
  response.headers.emplace_back("Cache-Control", "no-store");
  return response;
}

}  // namespace

AdminDoor::AdminDoor(const AdminOptions& options, const AdminParts& parts)
    : console_(options.console),
      operations_(parts.operations),
      experts_(parts.experts),
      state_(options.facts, parts.engine, parts.operations, parts.activity, parts.clock),
      events_([this] { return state_.Update(); }, options.event_period, parts.clock) {}

std::span<const std::string_view> AdminDoor::Routes() {
  static constexpr std::string_view kRoutes[] = {kState, kExperts, kEvents, kDrain,
                                                 kUndrain};
  return kRoutes;
}

std::optional<std::string_view> AdminDoor::RouteOf(std::string_view path) const {
  for (const std::string_view route : Routes()) {
    if (path == route) {
      return route;
    }
  }
  return console_ && ConsolePage::Owns(path) ? std::optional(kConsole) : std::nullopt;
}

std::optional<ApiError> AdminDoor::Refuse(const HttpRequest& request,
                                          const std::optional<KeyInfo>& key, bool open) {
  if (!open && !key.has_value()) {
    return InvalidKeyError();
  }
  if (!open && key->role != KeyRole::kAdmin) {
    return ForbiddenError("this needs a key of the role admin");
  }
  if (open && !IsLoopbackName(FindHeader(request.headers, "host"))) {
    return ForbiddenError("without keys this is served to loopback names only");
  }
  if (IsForeign(request)) {
    return ForbiddenError("another page's requests are not taken");
  }
  if (request.method == "POST" &&
      !FindHeader(request.headers, "content-type").starts_with("application/json")) {
    return BadRequestError("", "send Content-Type: application/json");
  }
  return std::nullopt;
}

void AdminDoor::Handle(const HttpRequest& request, std::string_view path,
                       const std::optional<KeyInfo>& key, bool open,
                       std::shared_ptr<ResponseWriter> writer) {
  if (RouteOf(path) == kConsole) {
    writer->Respond(page_.Answer(request, path));
    return;
  }
  if (const std::optional<ApiError> error = Refuse(request, key, open)) {
    writer->Respond(ErrorResponse(*error));
    return;
  }
  const bool changes = path == kDrain || path == kUndrain;
  if (request.method != (changes ? "POST" : "GET")) {
    HttpResponse response = ErrorResponse(MethodNotAllowedError());
    response.headers.emplace_back("Allow", changes ? "POST" : "GET");
    writer->Respond(std::move(response));
    return;
  }
  if (changes) {
    operations_->SetCordoned(path == kDrain);
    log::Info(
        "admin", path == kDrain ? "drained" : "takes requests again",
        {{"key", key.has_value() ? key->name : std::string()}, {"request", request.id}});
    writer->Respond(JsonResponse(state_.Update()));
  } else if (path == kState) {
    writer->Respond(JsonResponse(state_.Whole()));
  } else if (path == kExperts) {
    writer->Respond(JsonResponse(ExpertsJson(experts_)));
  } else if (!events_.Subscribe(writer)) {
    writer->Respond(ErrorResponse(
        {503, "server_error", "overloaded", "", "too many listeners", absl::Seconds(5)}));
  }
}

}  // namespace tessera::coordinator
