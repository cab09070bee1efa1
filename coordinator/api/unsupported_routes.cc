#include "coordinator/api/unsupported_routes.h"

#include "fmt/format.h"

namespace tessera::coordinator {

std::span<const UnsupportedRoute> UnsupportedRoutes() {
  constexpr std::string_view kNoEmbedding = "has no embedding or ranking model";
  constexpr std::string_view kNoMedia = "has no model of images, audio or video";
  constexpr std::string_view kNoFiles = "keeps no files and runs no jobs over them";
  constexpr std::string_view kNoMemory =
      "stores no answers and no conversations: every request brings its own";
  static constexpr UnsupportedRoute kRoutes[] = {
      {"/v1/embeddings", kNoEmbedding},
      {"/v1/rerank", kNoEmbedding},
      {"/v2/rerank", kNoEmbedding},
      {"/rerank", kNoEmbedding},
      {"/v1/score", kNoEmbedding},
      {"/score", kNoEmbedding},
      {"/pooling", kNoEmbedding},
      {"/classify", kNoEmbedding},
      {"/v1/moderations", "has no moderation model"},
      {"/v1/images", kNoMedia},
      {"/v1/audio", kNoMedia},
      {"/v1/videos", kNoMedia},
      {"/v1/realtime", kNoMedia},
      {"/v1/files", kNoFiles},
      {"/v1/uploads", kNoFiles},
      {"/v1/batches", kNoFiles},
      {"/v1/messages/batches", kNoFiles},
      {"/v1/vector_stores", kNoFiles},
      {"/v1/fine_tuning", "trains no models"},
      {"/v1/load_lora_adapter", "loads no adapters"},
      {"/v1/unload_lora_adapter", "loads no adapters"},
      {"/v1/chat/completions", kNoMemory},
      {"/v1/responses", kNoMemory},
      {"/v1/conversations", kNoMemory},
      {"/v1/assistants", kNoMemory},
      {"/v1/threads", kNoMemory},
      {"/v1/complete", "has no legacy text completions of Anthropic's"},
      {"/user/balance", "keeps no accounts"},
  };
  return kRoutes;
}

const UnsupportedRoute* FindUnsupportedRoute(std::string_view path) {
  for (const UnsupportedRoute& route : UnsupportedRoutes()) {
    if (path.starts_with(route.path) &&
        (path.size() == route.path.size() || path[route.path.size()] == '/')) {
      return &route;
    }
  }
  return nullptr;
}

ApiError UnsupportedRouteError(const UnsupportedRoute& route) {
  ApiError error = RouteNotFoundError();
  error.code = "unsupported_endpoint";
  error.message = fmt::format(
      "{} is not supported: this server {}. It generates text: POST "
      "/v1/chat/completions, /v1/completions, /v1/responses and /v1/messages",
      route.path, route.reason);
  return error;
}

}  // namespace tessera::coordinator
