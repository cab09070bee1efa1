#include "coordinator/api/api_service.h"

#include <algorithm>
#include <utility>

#include "coordinator/api/anthropic/anthropic_api.h"
#include "coordinator/api/anthropic/anthropic_errors.h"
#include "coordinator/api/health.h"
#include "coordinator/api/models.h"
#include "coordinator/api/observed_writer.h"
#include "coordinator/api/openai_chat.h"
#include "coordinator/api/openai_completions.h"
#include "coordinator/api/openapi/openapi_document.h"
#include "coordinator/api/responses/responses_api.h"
#include "coordinator/api/unsupported_routes.h"
#include "openssl/rand.h"

namespace tessera::coordinator {
namespace {

constexpr size_t kMaxClientRequestIdBytes = 128;

enum class Endpoint {
  kChat,
  kCompletions,
  kResponses,
  kMessages,
  kCountTokens,
  kModels,
  kModel,
  kRender,
  kTokenize,
  kDetokenize,
  kLivez,
  kReadyz,
  kHealth,
  kVersion,
  kLoad,
  kMetrics,
  kOpenApi,
};

// A client's own id is kept if it can go into a header and a log line as it is.
bool IsSaneRequestId(std::string_view id) {
  return !id.empty() && id.size() <= kMaxClientRequestIdBytes &&
         std::all_of(id.begin(), id.end(), [](char c) {
           return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
                  (c >= '0' && c <= '9') || c == '-' || c == '_' || c == '.' || c == ':';
         });
}

std::string_view PathOf(std::string_view target) {
  return target.substr(0, target.find('?'));
}

std::string_view QueryOf(std::string_view target) {
  const size_t mark = target.find('?');
  return mark == std::string_view::npos ? std::string_view() : target.substr(mark + 1);
}

// DeepSeek's clients leave /v1 out or say /beta, and /anthropic before Anthropic's paths:
// the same routes.
std::string CanonicalPath(std::string_view path) {
  for (const std::string_view base : {"/beta/", "/anthropic/"}) {
    if (path.starts_with(base)) {
      path.remove_prefix(base.size() - 1);
      break;
    }
  }
  for (const std::string_view alias :
       {"/chat/completions", "/chat/completions/render", "/completions", "/responses",
        "/models", "/embeddings"}) {
    if (path == alias || (alias == "/models" && path.starts_with("/models/"))) {
      return "/v1" + std::string(path);
    }
  }
  return std::string(path);
}

int HexDigit(char c) {
  if (c >= '0' && c <= '9') {
    return c - '0';
  }
  const char lower = static_cast<char>(c | 0x20);
  return lower >= 'a' && lower <= 'f' ? lower - 'a' + 10 : -1;
}

// Percent-decoding; a broken escape stays as it is, and then names no model.
std::string DecodePercent(std::string_view text) {
  std::string out;
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] == '%' && i + 2 < text.size() && HexDigit(text[i + 1]) >= 0 &&
        HexDigit(text[i + 2]) >= 0) {
      out.push_back(
          static_cast<char>(HexDigit(text[i + 1]) * 16 + HexDigit(text[i + 2])));
      i += 2;
    } else {
      out.push_back(text[i]);
    }
  }
  return out;
}

// The part of `path` that a route's "{id}" stands for.
std::string RestOf(std::string_view pattern, std::string_view path) {
  return DecodePercent(path.substr(pattern.find('{')));
}

}  // namespace

struct ApiService::Route {
  std::string_view pattern;
  std::string_view method;
  Endpoint endpoint;
  bool needs_key;
  bool is_prefix;  // "/v1/models/{id}": the rest of the path is the id
};

std::span<const ApiService::Route> ApiService::RouteTable() {
  static constexpr Route kRoutes[] = {
      {"/v1/chat/completions", "POST", Endpoint::kChat, true, false},
      {"/v1/chat/completions/render", "POST", Endpoint::kRender, true, false},
      {"/v1/completions", "POST", Endpoint::kCompletions, true, false},
      {"/v1/responses", "POST", Endpoint::kResponses, true, false},
      {"/v1/messages", "POST", Endpoint::kMessages, true, false},
      {"/v1/messages/count_tokens", "POST", Endpoint::kCountTokens, true, false},
      {"/v1/models", "GET", Endpoint::kModels, true, false},
      {"/v1/models/{id}", "GET", Endpoint::kModel, true, true},
      {"/tokenize", "POST", Endpoint::kTokenize, true, false},
      {"/detokenize", "POST", Endpoint::kDetokenize, true, false},
      {"/version", "GET", Endpoint::kVersion, true, false},
      {"/load", "GET", Endpoint::kLoad, true, false},
      {"/livez", "GET", Endpoint::kLivez, false, false},
      {"/readyz", "GET", Endpoint::kReadyz, false, false},
      {"/ready", "GET", Endpoint::kReadyz, false, false},
      {"/health", "GET", Endpoint::kHealth, false, false},
      {"/ping", "GET", Endpoint::kHealth, false, false},
      {"/metrics", "GET", Endpoint::kMetrics, false, false},
      {"/openapi.json", "GET", Endpoint::kOpenApi, false, false},
  };
  return kRoutes;
}

std::vector<ApiService::RouteName> ApiService::Routes() {
  std::vector<RouteName> names;
  for (const Route& route : RouteTable()) {
    names.push_back({route.pattern, route.method});
  }
  return names;
}

const ApiService::Route* ApiService::FindRoute(std::string_view path) {
  for (const Route& route : RouteTable()) {
    const std::string_view stem = route.pattern.substr(0, route.pattern.find('{'));
    const bool match = route.is_prefix
                           ? path.starts_with(stem) && path.size() > stem.size()
                           : path == route.pattern;
    if (match) {
      return &route;
    }
  }
  return nullptr;
}

absl::StatusOr<std::unique_ptr<ApiService>> ApiService::Create(
    const ApiServiceOptions& options, const ApiServiceParts& parts) {
  if (options.model_names.empty() || options.model_names.front().empty()) {
    return absl::InvalidArgumentError("the api has no model name");
  }
  if (options.limits.max_model_len < 2 || options.limits.vocab_size < 1 ||
      options.limits.num_token_ids < 1) {
    return absl::InvalidArgumentError(
        "the api's limits lack the context length or the vocabulary");
  }
  auto access = AccessControl::Create(options.access, parts.clock);
  if (!access.ok()) {
    return access.status();
  }
  uint64_t seed = options.seed.value_or(0);
  if (!options.seed.has_value() &&
      RAND_bytes(reinterpret_cast<unsigned char*>(&seed), sizeof(seed)) != 1) {
    return absl::InternalError("openssl has no random bytes");
  }
  return std::unique_ptr<ApiService>(
      new ApiService(options, parts, *std::move(access), seed));
}

ApiService::ApiService(const ApiServiceOptions& options, const ApiServiceParts& parts,
                       std::unique_ptr<AccessControl> access, uint64_t seed)
    : access_(std::move(access)),
      limited_(parts.engine, &access_->rates()),
      idempotency_(std::make_shared<IdempotencyStore>(options.idempotency)),
      admin_(parts.admin),
      ids_(seed),
      openapi_(OpenApiDocument(options.version)) {
  context_.options = options;
  // AccessControl alone knows who may call: a copy here would not be replaced with it.
  context_.options.access = AccessConfig();
  context_.tokenizer = parts.tokenizer;
  context_.chat = parts.chat;
  context_.engine = &limited_;
  context_.rates = &access_->rates();
  context_.grammars = parts.grammars;
  context_.clock = parts.clock;
  context_.observer = parts.observer != nullptr ? parts.observer : &silent_observer_;
  context_.metrics = parts.metrics;
  context_.ids = &ids_;
  size_t longest = 1;
  for (int32_t id = 0; id < parts.tokenizer->size(); ++id) {
    longest = std::max(longest, parts.tokenizer->TokenBytes(id).size());
  }
  context_.max_prompt_bytes = longest * static_cast<size_t>(options.limits.max_model_len);
}

// Requests that outlive the service find nobody to answer.
ApiService::~ApiService() { idempotency_->Clear(); }

bool ApiService::IsQuick(const HttpRequest& request) { return request.method != "POST"; }

bool ApiService::SpeaksAnthropic(const Route* route, const HttpHeaders& headers) {
  if (route != nullptr && (route->endpoint == Endpoint::kMessages ||
                           route->endpoint == Endpoint::kCountTokens)) {
    return true;
  }
  // Paths that both dialects know, or neither.
  const bool shared = route == nullptr || route->endpoint == Endpoint::kModels ||
                      route->endpoint == Endpoint::kModel;
  return shared && !FindHeader(headers, "anthropic-version").empty();
}

void ApiService::SetDraining() {
  draining_.store(true);
  if (admin_ != nullptr) {
    admin_->CloseStreams();
  }
}

HttpHeaders ApiService::CommonHeaders(const HttpHeaders& request_headers,
                                      bool anthropic) {
  HttpHeaders headers;
  const std::string_view own = FindHeader(request_headers, "x-request-id");
  const std::string id = IsSaneRequestId(own) ? std::string(own) : ids_.NextId("req-");
  headers.emplace_back("x-request-id", id);
  if (anthropic) {
    headers.emplace_back("request-id", id);
  }
  const std::string_view origin = FindHeader(request_headers, "origin");
  const auto& allowed = context_.options.allowed_origins;
  const bool any = std::find(allowed.begin(), allowed.end(), "*") != allowed.end();
  if (!origin.empty() &&
      (any || std::find(allowed.begin(), allowed.end(), origin) != allowed.end())) {
    headers.emplace_back("Access-Control-Allow-Origin", any ? "*" : std::string(origin));
    headers.emplace_back("Access-Control-Expose-Headers",
                         "x-request-id, request-id, retry-after, idempotent-replayed, "
                         "x-ratelimit-limit-requests, x-ratelimit-limit-tokens, "
                         "x-ratelimit-remaining-requests, x-ratelimit-remaining-tokens, "
                         "x-ratelimit-reset-requests, x-ratelimit-reset-tokens");
    if (!any) {
      headers.emplace_back("Vary", "Origin");
    }
  }
  return headers;
}

HttpResponse ApiService::TransportError(const ApiError& error,
                                        const HttpHeaders& headers) {
  if (error.status == 413) {
    context_.observer->OnRejected(RejectReason::kTooLarge);
  }
  context_.observer->OnHttpStart();
  context_.observer->OnHttpEnd("unknown", "unknown", error.status, absl::ZeroDuration());
  const bool anthropic = SpeaksAnthropic(nullptr, headers);
  const HttpHeaders common = CommonHeaders(headers, anthropic);
  HttpResponse response =
      anthropic ? AnthropicErrorResponse(error, FindHeader(common, "x-request-id"))
                : ErrorResponse(error);
  response.headers.insert(response.headers.end(), common.begin(), common.end());
  return response;
}

bool ApiService::NeedsKey(const Route* route) const {
  const bool needs_key =
      route == nullptr || route->needs_key ||
      (route->endpoint == Endpoint::kMetrics && context_.options.metrics_need_key);
  return needs_key && !access_->open();
}

std::optional<KeyInfo> ApiService::KeyOf(const HttpRequest& request) const {
  constexpr std::string_view kBearer = "Bearer ";
  const std::string_view authorization = FindHeader(request.headers, "authorization");
  if (authorization.starts_with(kBearer)) {
    return access_->Authenticate(authorization.substr(kBearer.size()));
  }
  return access_->Authenticate(FindHeader(request.headers, "x-api-key"));
}

namespace {

// The answer to a browser's question before a cross-origin request.
HttpResponse PreflightResponse(bool allowed) {
  HttpResponse response;
  response.status = 204;
  if (allowed) {
    response.headers = {
        {"Access-Control-Allow-Methods", "GET, POST, OPTIONS"},
        // SDKs send x-stainless-* headers, which no list could keep up with.
        {"Access-Control-Allow-Headers", "*, Authorization"},
        {"Access-Control-Max-Age", "600"}};
  }
  return response;
}

}  // namespace

void ApiService::Handle(HttpRequest request, std::shared_ptr<ResponseWriter> writer) {
  const std::string path = CanonicalPath(PathOf(request.target));
  const Route* route = FindRoute(path);
  const UnsupportedRoute* unsupported =
      route == nullptr ? FindUnsupportedRoute(path) : nullptr;
  const auto admin_route =
      route == nullptr && admin_ != nullptr ? admin_->RouteOf(path) : std::nullopt;
  const std::string_view label = route != nullptr          ? route->pattern
                                 : admin_route.has_value() ? *admin_route
                                 : unsupported != nullptr  ? unsupported->path
                                                           : "unknown";
  const bool anthropic = SpeaksAnthropic(route, request.headers);
  HttpHeaders headers = CommonHeaders(request.headers, anthropic);
  request.id = FindHeader(headers, "x-request-id");
  const auto refusal = [&](const ApiError& error) {
    return anthropic ? AnthropicErrorResponse(error, request.id) : ErrorResponse(error);
  };
  const bool cross_origin = !FindHeader(headers, "access-control-allow-origin").empty();
  // Methods are a label of a metric: only those that we know.
  const bool known_method = request.method == "GET" || request.method == "POST" ||
                            request.method == "HEAD" || request.method == "OPTIONS";
  const std::optional<KeyInfo> key = KeyOf(request);
  auto observed = std::make_shared<ObservedWriter>(
      &context_, std::move(writer), std::move(headers),
      ObservedWriter::Labels{label, known_method ? request.method : "other",
                             context_.clock->Now(), key.value_or(KeyInfo()).tenant,
                             anthropic});
  if (request.method == "OPTIONS") {
    observed->Respond(PreflightResponse(cross_origin));
    return;
  }
  if (admin_route.has_value()) {
    admin_->Handle(request, path, key, access_->open(), std::move(observed));
    return;
  }
  if (route == nullptr && unsupported == nullptr) {
    observed->Respond(refusal(RouteNotFoundError()));
    return;
  }
  if (NeedsKey(route) && !key.has_value()) {
    context_.observer->OnRejected(RejectReason::kAuth);
    observed->Respond(refusal(InvalidKeyError()));
    return;
  }
  request.key = key.value_or(KeyInfo());
  if (unsupported != nullptr) {
    observed->Respond(refusal(UnsupportedRouteError(*unsupported)));
    return;
  }
  const bool head = request.method == "HEAD" && route->method == "GET";
  if (request.method != route->method && !head) {
    HttpResponse response = refusal(MethodNotAllowedError());
    response.headers.emplace_back("Allow", std::string(route->method) + ", OPTIONS");
    observed->Respond(std::move(response));
    return;
  }
  const bool generates =
      route->endpoint == Endpoint::kChat || route->endpoint == Endpoint::kCompletions ||
      route->endpoint == Endpoint::kResponses || route->endpoint == Endpoint::kMessages;
  if (generates && draining_.load()) {
    context_.observer->OnRejected(RejectReason::kDraining);
    observed->Respond(refusal(NotReadyError(/*draining=*/true, absl::Seconds(1))));
    return;
  }
  if (generates) {
    Generate(*route, request, refusal, std::move(observed));
  } else {
    observed->Respond(anthropic ? AnswerAnthropic(*route, path, request)
                                : Answer(*route, path, request));
  }
}

void ApiService::Generate(const Route& route, const HttpRequest& request,
                          const RefusalText& refusal,
                          std::shared_ptr<ResponseWriter> writer) {
  writer = AdmitOnce(idempotency_, context_.clock, context_.observer, route.pattern,
                     request, refusal, std::move(writer));
  if (writer == nullptr) {
    return;  // it is answered as an earlier request was
  }
  if (route.endpoint == Endpoint::kChat) {
    HandleChat(context_, request, std::move(writer));
  } else if (route.endpoint == Endpoint::kCompletions) {
    HandleCompletion(context_, request, std::move(writer));
  } else if (route.endpoint == Endpoint::kResponses) {
    HandleResponses(context_, request, std::move(writer));
  } else {
    HandleMessages(context_, request, std::move(writer));
  }
}

HttpResponse ApiService::AnswerAnthropic(const Route& route, std::string_view path,
                                         const HttpRequest& request) const {
  if (route.endpoint == Endpoint::kCountTokens) {
    return HandleCountTokens(context_, request);
  }
  if (route.endpoint == Endpoint::kModels) {
    return ListAnthropicModels(context_);
  }
  return GetAnthropicModel(context_, RestOf(route.pattern, path), request.id);
}

HttpResponse ApiService::Answer(const Route& route, std::string_view path,
                                const HttpRequest& request) const {
  switch (route.endpoint) {
    case Endpoint::kChat:
    case Endpoint::kCompletions:
    case Endpoint::kResponses:
    case Endpoint::kMessages:
    case Endpoint::kCountTokens:
      break;  // Generate and AnswerAnthropic
    case Endpoint::kModels:
      return ListModels(context_);
    case Endpoint::kModel:
      return GetModel(context_, RestOf(route.pattern, path));
    case Endpoint::kRender:
      return HandleRender(context_, request);
    case Endpoint::kTokenize:
      return HandleTokenize(context_, request);
    case Endpoint::kDetokenize:
      return HandleDetokenize(context_, request);
    case Endpoint::kLivez:
      return LivezResponse();
    case Endpoint::kReadyz:
      return ReadyzResponse(context_);
    case Endpoint::kHealth:
      return HealthResponse(context_);
    case Endpoint::kVersion:
      return VersionResponse(context_);
    case Endpoint::kLoad:
      return LoadResponse(context_);
    case Endpoint::kMetrics:
      if (context_.metrics != nullptr) {
        return MetricsResponse(context_, QueryOf(request.target));
      }
      break;
    case Endpoint::kOpenApi: {
      HttpResponse response;
      response.body = openapi_;
      return response;
    }
  }
  return ErrorResponse(RouteNotFoundError());
}

}  // namespace tessera::coordinator
