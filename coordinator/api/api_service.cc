#include "coordinator/api/api_service.h"

#include <algorithm>
#include <utility>

#include "common/log.h"
#include "coordinator/api/health.h"
#include "coordinator/api/models.h"
#include "coordinator/api/openai_chat.h"
#include "coordinator/api/openai_completions.h"
#include "openssl/rand.h"

namespace tessera::coordinator {
namespace {

constexpr size_t kMaxClientRequestIdBytes = 128;

enum class Endpoint {
  kChat,
  kCompletions,
  kModels,
  kModel,
  kTokenize,
  kDetokenize,
  kEmbeddings,
  kLivez,
  kReadyz,
  kHealth,
  kVersion,
  kLoad,
  kMetrics,
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

// DeepSeek's clients leave /v1 out or say /beta: the same routes.
std::string CanonicalPath(std::string_view path) {
  constexpr std::string_view kBeta = "/beta/";
  if (path.starts_with(kBeta)) {
    path.remove_prefix(kBeta.size() - 1);
  }
  for (const std::string_view alias :
       {"/chat/completions", "/completions", "/models", "/embeddings"}) {
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

// Adds the common headers to whatever the route answers, and tells the observer how it
// ended.
class ObservedWriter final : public ResponseWriter,
                             public std::enable_shared_from_this<ObservedWriter> {
 public:
  // What the observer is told about the request.
  struct Labels {
    std::string_view route;
    std::string method;
    absl::Time start;
  };

  ObservedWriter(const ApiContext* context, std::shared_ptr<ResponseWriter> next,
                 HttpHeaders headers, Labels labels)
      : context_(context),
        next_(std::move(next)),
        headers_(std::move(headers)),
        labels_(std::move(labels)) {
    context_->observer->OnHttpStart();
  }

  void Respond(HttpResponse response) override {
    response.headers.insert(response.headers.end(), headers_.begin(), headers_.end());
    const int status = response.status;
    next_->Respond(std::move(response));
    End(status);
  }

  void StartStream(HttpResponse head) override {
    head.headers.insert(head.headers.end(), headers_.begin(), headers_.end());
    stream_status_ = head.status;
    context_->observer->OnStreamOpen();
    next_->StartStream(std::move(head));
  }

  void Write(std::string data) override { next_->Write(std::move(data)); }

  void Finish(bool close) override {
    next_->Finish(close);
    End(kClientLeft);
  }

  void OnDisconnect(std::function<void()> handler) override {
    next_->OnDisconnect([weak = weak_from_this(), handler = std::move(handler)] {
      if (const auto self = weak.lock()) {
        self->End(kClientLeft);
      }
      handler();
    });
  }

  void Post(std::function<void()> task) override { next_->Post(std::move(task)); }

 private:
  // nginx's code for a client that closed before the answer began.
  static constexpr int kClientLeft = 499;

  // `code` counts unless a stream began, which has its own. Once.
  void End(int code) {
    if (std::exchange(ended_, true)) {
      return;
    }
    const bool streamed = stream_status_ != 0;
    if (streamed) {
      context_->observer->OnStreamClose();
    }
    const int status = streamed ? stream_status_ : code;
    const absl::Duration duration = context_->clock->Now() - labels_.start;
    // Probes and scrapes come every few seconds and say nothing that metrics do not.
    log::Write(labels_.method == "POST" ? log::Level::kInfo : log::Level::kDebug, "http",
               "answered",
               {{"request_id", FindHeader(headers_, "x-request-id")},
                {"route", labels_.route},
                {"method", labels_.method},
                {"code", status},
                {"seconds", absl::ToDoubleSeconds(duration)}});
    context_->observer->OnHttpEnd(labels_.route, labels_.method, status, duration);
  }

  const ApiContext* context_;
  std::shared_ptr<ResponseWriter> next_;
  const HttpHeaders headers_;
  const Labels labels_;
  int stream_status_ = 0;
  bool ended_ = false;
};

}  // namespace

struct ApiService::Route {
  std::string_view pattern;
  std::string_view method;
  Endpoint endpoint;
  bool needs_key;
  bool is_prefix;  // "/v1/models/{id}": the rest of the path is the id
};

const ApiService::Route* ApiService::FindRoute(std::string_view path) {
  static constexpr Route kRoutes[] = {
      {"/v1/chat/completions", "POST", Endpoint::kChat, true, false},
      {"/v1/completions", "POST", Endpoint::kCompletions, true, false},
      {"/v1/embeddings", "POST", Endpoint::kEmbeddings, true, false},
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
  };
  for (const Route& route : kRoutes) {
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
  auto keys = ApiKeys::Create(options.api_keys);
  if (!keys.ok()) {
    return keys.status();
  }
  uint64_t seed = options.seed.value_or(0);
  if (!options.seed.has_value() &&
      RAND_bytes(reinterpret_cast<unsigned char*>(&seed), sizeof(seed)) != 1) {
    return absl::InternalError("openssl has no random bytes");
  }
  return std::unique_ptr<ApiService>(
      new ApiService(options, parts, *std::move(keys), seed));
}

ApiService::ApiService(const ApiServiceOptions& options, const ApiServiceParts& parts,
                       ApiKeys keys, uint64_t seed)
    : keys_(std::move(keys)), ids_(seed) {
  context_.options = options;
  // The set of digests is all that is kept of the keys.
  context_.options.api_keys.clear();
  context_.tokenizer = parts.tokenizer;
  context_.chat = parts.chat;
  context_.engine = parts.engine;
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

ApiService::~ApiService() = default;

bool ApiService::IsQuick(const HttpRequest& request) { return request.method != "POST"; }

void ApiService::SetDraining() { draining_.store(true); }

HttpHeaders ApiService::CommonHeaders(const HttpHeaders& request_headers) {
  HttpHeaders headers;
  const std::string_view id = FindHeader(request_headers, "x-request-id");
  headers.emplace_back("x-request-id",
                       IsSaneRequestId(id) ? std::string(id) : ids_.NextId("req-"));
  const std::string_view origin = FindHeader(request_headers, "origin");
  const auto& allowed = context_.options.allowed_origins;
  const bool any = std::find(allowed.begin(), allowed.end(), "*") != allowed.end();
  if (!origin.empty() &&
      (any || std::find(allowed.begin(), allowed.end(), origin) != allowed.end())) {
    headers.emplace_back("Access-Control-Allow-Origin", any ? "*" : std::string(origin));
    headers.emplace_back("Access-Control-Expose-Headers", "x-request-id, retry-after");
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
  HttpResponse response = ErrorResponse(error);
  const HttpHeaders common = CommonHeaders(headers);
  response.headers.insert(response.headers.end(), common.begin(), common.end());
  return response;
}

bool ApiService::Authorized(const Route& route, const HttpRequest& request) const {
  const bool needs_key = route.needs_key || (route.endpoint == Endpoint::kMetrics &&
                                             context_.options.metrics_need_key);
  if (!needs_key || keys_.empty()) {
    return true;
  }
  constexpr std::string_view kBearer = "Bearer ";
  const std::string_view authorization = FindHeader(request.headers, "authorization");
  if (authorization.starts_with(kBearer)) {
    return keys_.Accepts(authorization.substr(kBearer.size()));
  }
  return keys_.Accepts(FindHeader(request.headers, "x-api-key"));
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
  HttpHeaders headers = CommonHeaders(request.headers);
  const bool cross_origin = !FindHeader(headers, "access-control-allow-origin").empty();
  // Methods are a label of a metric: only those that we know.
  const bool known_method = request.method == "GET" || request.method == "POST" ||
                            request.method == "HEAD" || request.method == "OPTIONS";
  auto observed = std::make_shared<ObservedWriter>(
      &context_, std::move(writer), std::move(headers),
      ObservedWriter::Labels{route == nullptr ? "unknown" : route->pattern,
                             known_method ? request.method : "other",
                             context_.clock->Now()});
  if (request.method == "OPTIONS") {
    observed->Respond(PreflightResponse(cross_origin));
    return;
  }
  if (route == nullptr) {
    observed->Respond(ErrorResponse(RouteNotFoundError()));
    return;
  }
  if (!Authorized(*route, request)) {
    context_.observer->OnRejected(RejectReason::kAuth);
    observed->Respond(ErrorResponse(InvalidKeyError()));
    return;
  }
  const bool head = request.method == "HEAD" && route->method == "GET";
  if (request.method != route->method && !head) {
    HttpResponse response = ErrorResponse(MethodNotAllowedError());
    response.headers.emplace_back("Allow", std::string(route->method) + ", OPTIONS");
    observed->Respond(std::move(response));
    return;
  }
  Dispatch(*route, path, request, std::move(observed));
}

void ApiService::Dispatch(const Route& route, std::string_view path,
                          const HttpRequest& request,
                          std::shared_ptr<ResponseWriter> writer) {
  switch (route.endpoint) {
    case Endpoint::kChat:
    case Endpoint::kCompletions:
      if (draining_.load()) {
        context_.observer->OnRejected(RejectReason::kDraining);
        writer->Respond(
            ErrorResponse(NotReadyError(/*draining=*/true, absl::Seconds(1))));
      } else if (route.endpoint == Endpoint::kChat) {
        HandleChat(context_, request, std::move(writer));
      } else {
        HandleCompletion(context_, request, std::move(writer));
      }
      return;
    case Endpoint::kEmbeddings: {
      ApiError error = RouteNotFoundError();
      error.message = "this server has no embedding model";
      return writer->Respond(ErrorResponse(error));
    }
    case Endpoint::kModels:
      return writer->Respond(ListModels(context_));
    case Endpoint::kModel: {
      const size_t stem = route.pattern.find('{');
      return writer->Respond(GetModel(context_, DecodePercent(path.substr(stem))));
    }
    case Endpoint::kTokenize:
      return writer->Respond(HandleTokenize(context_, request));
    case Endpoint::kDetokenize:
      return writer->Respond(HandleDetokenize(context_, request));
    case Endpoint::kLivez:
      return writer->Respond(LivezResponse());
    case Endpoint::kReadyz:
      return writer->Respond(ReadyzResponse(context_));
    case Endpoint::kHealth:
      return writer->Respond(HealthResponse(context_));
    case Endpoint::kVersion:
      return writer->Respond(VersionResponse(context_));
    case Endpoint::kLoad:
      return writer->Respond(LoadResponse(context_));
    case Endpoint::kMetrics:
      if (context_.metrics == nullptr) {
        return writer->Respond(ErrorResponse(RouteNotFoundError()));
      }
      return writer->Respond(MetricsResponse(context_, QueryOf(request.target)));
  }
}

}  // namespace tessera::coordinator
