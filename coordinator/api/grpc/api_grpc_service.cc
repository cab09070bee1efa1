#include "coordinator/api/grpc/api_grpc_service.h"

#include <algorithm>
#include <chrono>
#include <optional>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/strings/str_replace.h"
#include "fmt/format.h"
#include "grpcpp/grpcpp.h"
#include "grpcpp/security/tls_certificate_provider.h"
#include "grpcpp/security/tls_credentials_options.h"

#include "common/status.h"
#include "common/status_macros.h"
#include "coordinator/api/grpc/api_request_convert.h"
#include "coordinator/api/grpc/stream_call.h"
#include "coordinator/api/grpc/tools_convert.h"
#include "coordinator/api/http/tls_context.h"
#include "proto/api.grpc.pb.h"
#include "proto/status_convert.h"

namespace tessera::coordinator {
namespace {

namespace wire = tessera::api::v1;

std::string_view MetadataValue(const grpc::CallbackServerContext& context,
                               const char* key) {
  const auto found = context.client_metadata().find(key);
  return found == context.client_metadata().end()
             ? std::string_view()
             : std::string_view(found->second.data(), found->second.size());
}

absl::StatusOr<KeyInfo> Authenticate(const ApiService& api,
                                     const grpc::CallbackServerContext& context) {
  constexpr std::string_view kBearer = "Bearer ";
  std::string_view key = MetadataValue(context, "authorization");
  if (key.starts_with(kBearer)) {
    key.remove_prefix(kBearer.size());
  } else {
    key = MetadataValue(context, "x-api-key");
  }
  std::optional<KeyInfo> info = api.access()->Authenticate(key);
  if (!info.has_value()) {
    return absl::UnauthenticatedError("missing or incorrect API key");
  }
  return *std::move(info);
}

absl::Status CheckModelName(const ApiContext& context, const std::string& name) {
  if (name.empty() || context.ServesModel(name)) {
    return absl::OkStatus();
  }
  return absl::NotFoundError("the model does not exist");
}

// The call's own deadline; none means the server's default, a later one the server's
// longest.
std::optional<absl::Duration> TimeoutOf(const ApiContext& api,
                                        const grpc::CallbackServerContext& context) {
  const auto deadline = context.deadline();
  if (deadline == std::chrono::system_clock::time_point::max()) {
    return std::nullopt;
  }
  const absl::Duration left = absl::FromChrono(deadline) - api.clock->Now();
  return std::min(left, api.options.limits.max_timeout);
}

class GenerateCall final : public StreamCall<wire::GenerateEvent> {
 public:
  using StreamCall::StreamCall;

  void OnToken(const TokenEvent& token) override {
    wire::GenerateEvent event;
    WriteToken(token, event.mutable_token());
    Push(std::move(event));
  }

  void OnChoiceFinished(const ChoiceFinished& finished) override {
    wire::GenerateEvent event;
    WriteFinished(finished, event.mutable_finished());
    Push(std::move(event));
  }
};

// Parsers are only touched by the engine's thread, after SetUp and before it lets go of
// the sink.
class ChatCall final : public StreamCall<wire::ChatEvent> {
 public:
  using StreamCall::StreamCall;

  void SetUp(bool thinking, const ValidatedRequest& request) {
    with_tokens_ = request.sampling(0).num_logprobs >= 0;
    for (int32_t i = 0; i < request.num_choices(); ++i) {
      parsers_.push_back(context().chat->NewTurnParser(thinking));
    }
    called_tools_.resize(parsers_.size(), false);
  }

  void OnToken(const TokenEvent& token) override {
    Send(parsers_[static_cast<size_t>(token.choice)]->Push(token.text), token.choice,
         with_tokens_ ? &token : nullptr);
  }

  void OnChoiceFinished(const ChoiceFinished& finished) override {
    const auto index = static_cast<size_t>(finished.choice);
    Send(parsers_[index]->Push(finished.text), finished.choice);
    Send(parsers_[index]->Finish(), finished.choice);
    wire::ChatEvent event;
    ChoiceFinished rest = finished;
    rest.text.clear();
    WriteFinished(rest, event.mutable_finished());
    if (called_tools_[index] && finished.reason == FinishReason::kStop) {
      event.mutable_finished()->set_reason(wire::FINISH_REASON_TOOL_CALLS);
    }
    Push(std::move(event));
  }

 private:
  // `token`: told with the delta, whatever became certain with it.
  void Send(const model::TurnParser::Delta& delta, int32_t choice,
            const TokenEvent* token = nullptr) {
    if (delta.reasoning.empty() && delta.content.empty() && delta.tool_calls.empty() &&
        token == nullptr) {
      return;
    }
    if (!delta.tool_calls.empty()) {
      called_tools_[static_cast<size_t>(choice)] = true;
    }
    wire::ChatEvent event;
    WriteDelta(delta, choice, context().ids, event.mutable_delta());
    if (token != nullptr) {
      WriteToken(*token, event.mutable_delta()->add_tokens());
    }
    Push(std::move(event));
  }

  std::vector<std::unique_ptr<model::TurnParser>> parsers_;
  std::vector<bool> called_tools_;
  bool with_tokens_ = false;
};

class Service final : public wire::ApiService::CallbackService {
 public:
  Service(coordinator::ApiService* api, size_t max_queued)
      : api_(api), max_queued_(max_queued) {}

  const ApiContext& context() const { return api_->context(); }

  grpc::ServerWriteReactor<wire::GenerateEvent>* Generate(
      grpc::CallbackServerContext* call, const wire::GenerateRequest* request) override {
    auto reactor = std::make_shared<GenerateCall>(api_, "Generate", max_queued_);
    auto validated = ValidateGenerate(call, *request);
    auto* released = GenerateCall::Release(reactor);
    if (validated.ok()) {
      reactor->Submit(*std::move(validated));
    } else {
      reactor->End(validated.status());
    }
    return released;
  }

  grpc::ServerWriteReactor<wire::ChatEvent>* Chat(
      grpc::CallbackServerContext* call, const wire::ChatRequest* request) override {
    auto reactor = std::make_shared<ChatCall>(api_, "Chat", max_queued_);
    bool in_reasoning = false;
    auto validated = ValidateChat(call, *request, &in_reasoning);
    auto* released = ChatCall::Release(reactor);
    if (validated.ok()) {
      reactor->SetUp(in_reasoning, *validated);
      reactor->Submit(*std::move(validated));
    } else {
      reactor->End(validated.status());
    }
    return released;
  }

  grpc::ServerUnaryReactor* ListModels(grpc::CallbackServerContext* call,
                                       const wire::ListModelsRequest* /*request*/,
                                       wire::ListModelsResponse* response) override {
    for (const std::string& name : context().options.model_names) {
      wire::Model* model = response->add_models();
      model->set_id(name);
      model->set_created(context().options.model_created);
      model->set_max_model_len(context().options.limits.max_model_len);
    }
    return Answer(call, "ListModels", Authenticate(*api_, *call).status());
  }

  grpc::ServerUnaryReactor* Tokenize(grpc::CallbackServerContext* call,
                                     const wire::TokenizeRequest* request,
                                     wire::TokenizeResponse* response) override {
    const absl::Status status = Admit(*call, request->model()).status();
    if (status.ok()) {
      const auto ids =
          context().tokenizer->Encode(request->text(), model::AddedTokens::kRecognize);
      response->mutable_ids()->Add(ids.begin(), ids.end());
    }
    return Answer(call, "Tokenize", status);
  }

  grpc::ServerUnaryReactor* Detokenize(grpc::CallbackServerContext* call,
                                       const wire::DetokenizeRequest* request,
                                       wire::DetokenizeResponse* response) override {
    absl::Status status = Admit(*call, request->model()).status();
    if (status.ok()) {
      const std::vector<int32_t> ids(request->ids().begin(), request->ids().end());
      auto text = context().tokenizer->Decode(ids, /*skip_special=*/false);
      if (text.ok()) {
        response->set_text(*std::move(text));
      } else {
        status = absl::InvalidArgumentError("a token id is out of range");
      }
    }
    return Answer(call, "Detokenize", status);
  }

 private:
  absl::StatusOr<KeyInfo> Admit(const grpc::CallbackServerContext& call,
                                const std::string& model) const {
    TESSERA_ASSIGN_OR_RETURN(KeyInfo key, Authenticate(*api_, call));
    TESSERA_RETURN_IF_ERROR(CheckModelName(context(), model));
    return key;
  }

  grpc::ServerUnaryReactor* Answer(grpc::CallbackServerContext* call, const char* method,
                                   const absl::Status& status) {
    context().observer->OnGrpcEnd(kGrpcApiService, method,
                                  absl::StatusCodeToString(status.code()),
                                  absl::ZeroDuration());
    auto* reactor = call->DefaultReactor();
    reactor->Finish(proto::ToGrpcStatus(status));
    return reactor;
  }

  // The shared constructor, with the field in error as trailing metadata.
  absl::StatusOr<ValidatedRequest> Validate(grpc::CallbackServerContext* call,
                                            RequestSpec spec) const {
    if (!MetadataValue(*call, "idempotency-key").empty()) {
      return absl::InvalidArgumentError("idempotency keys are taken over HTTP only");
    }
    spec.request_id = context().ids->NextId("grpc-");
    spec.timeout = TimeoutOf(context(), *call);
    if (spec.timeout.has_value() && *spec.timeout <= absl::ZeroDuration()) {
      return absl::DeadlineExceededError("the call's deadline passed");
    }
    FieldError error;
    auto validated = ValidatedRequest::Create(std::move(spec), context().options.limits,
                                              context().clock->Now(),
                                              context().ids->NextSeed(), &error);
    if (!validated.ok()) {
      call->AddTrailingMetadata("tessera-param", error.param);
      call->AddTrailingMetadata("tessera-code", error.code);
    }
    return validated;
  }

  // An error of the code that both doors share, with the field as trailing metadata.
  static absl::Status Refusal(grpc::CallbackServerContext* call, const ApiError& error) {
    // A tool's fields stand in the tool itself here.
    call->AddTrailingMetadata("tessera-param",
                              absl::StrReplaceAll(error.param, {{".function.", "."}}));
    call->AddTrailingMetadata("tessera-code", error.code);
    return absl::InvalidArgumentError(error.message);
  }

  absl::StatusOr<ValidatedRequest> ValidateGenerate(
      grpc::CallbackServerContext* call, const wire::GenerateRequest& request) const {
    TESSERA_ASSIGN_OR_RETURN(const KeyInfo key, Admit(*call, request.model()));
    RequestSpec spec;
    spec.tenant = key.tenant;
    ReadSamplingOptions(request.sampling(), &spec);
    if (request.has_token_ids()) {
      spec.prompt_ids.assign(request.token_ids().ids().begin(),
                             request.token_ids().ids().end());
    } else if (request.text().size() > context().max_prompt_bytes) {
      return absl::InvalidArgumentError("the prompt can't fit the context");
    } else {
      if (context().options.bos_token_id.has_value() && !request.text().empty()) {
        spec.prompt_ids.push_back(*context().options.bos_token_id);
      }
      const auto ids =
          context().tokenizer->Encode(request.text(), model::AddedTokens::kRecognize);
      spec.prompt_ids.insert(spec.prompt_ids.end(), ids.begin(), ids.end());
    }
    return Validate(call, std::move(spec));
  }

  absl::StatusOr<ValidatedRequest> ValidateChat(grpc::CallbackServerContext* call,
                                                const wire::ChatRequest& request,
                                                bool* in_reasoning) const {
    TESSERA_ASSIGN_OR_RETURN(const KeyInfo key, Admit(*call, request.model()));
    if (request.messages_size() > context().options.max_messages) {
      return InvalidArgumentF("{} messages, expected at most {}", request.messages_size(),
                              context().options.max_messages);
    }
    if (request.ByteSizeLong() > context().max_prompt_bytes + (1 << 20)) {
      return absl::InvalidArgumentError("the messages can't fit the context");
    }
    std::vector<model::ChatMessage> messages = ReadChatMessages(request);
    ToolDemand tools;
    std::string tools_body;
    if (auto bad = ReadGrpcTools(context(), request, &messages, &tools, &tools_body)) {
      return Refusal(call, *bad);
    }
    auto encoded = context().chat->Encode(messages, ReadChatOptions(context(), request));
    if (!encoded.ok()) {
      return PublicStatus(encoded.status());
    }
    *in_reasoning = encoded->in_reasoning;
    RequestSpec spec;
    spec.tenant = key.tenant;
    ReadSamplingOptions(request.sampling(), &spec);
    spec.prompt_logprobs.reset();
    spec.prompt_ids = std::move(encoded->ids);
    if (auto bad = ConstrainAnswer(context(), tools_body, tools, *in_reasoning, &spec)) {
      return Refusal(call, *bad);
    }
    // The parser must see the tags, which a checkpoint may mark special.
    spec.skip_special_tokens = false;
    return Validate(call, std::move(spec));
  }

  coordinator::ApiService* const api_;
  const size_t max_queued_;
};

// gRPC looks at the files by itself.
constexpr unsigned int kCertificateRefreshSeconds = 5;
// A connection that is not agreed upon by then is closed.
constexpr int kHandshakeTimeoutMs = 10'000;

std::shared_ptr<grpc::ServerCredentials> CredentialsOf(const ApiGrpcOptions& options) {
  namespace tls = grpc::experimental;
  if (!options.tls.has_value()) {
    return grpc::InsecureServerCredentials();
  }
  const TlsOptions& files = *options.tls;
  tls::TlsServerCredentialsOptions credentials(
      std::make_shared<tls::FileWatcherCertificateProvider>(
          files.key_file, files.certificate_file, files.client_ca_file,
          kCertificateRefreshSeconds));
  credentials.watch_identity_key_cert_pairs();
  if (files.client_certificates != ClientCertificates::kNone) {
    credentials.watch_root_certs();
    credentials.set_cert_request_type(
        files.client_certificates == ClientCertificates::kRequired
            ? GRPC_SSL_REQUEST_AND_REQUIRE_CLIENT_CERTIFICATE_AND_VERIFY
            : GRPC_SSL_REQUEST_CLIENT_CERTIFICATE_AND_VERIFY);
  }
  return tls::TlsServerCredentials(credentials);
}

}  // namespace

struct ApiGrpcServer::Running {
  Running(ApiService* api, size_t max_queued) : service(api, max_queued) {}

  Service service;
  std::unique_ptr<grpc::Server> server;
  int port = 0;
};

absl::StatusOr<std::unique_ptr<ApiGrpcServer>> ApiGrpcServer::Create(
    const ApiGrpcOptions& options, ApiService* api) {
  if (options.tls.has_value()) {
    // gRPC would listen and fail every handshake.
    TESSERA_RETURN_IF_ERROR(TlsContext::Create(*options.tls).status());
  }
  auto running = std::make_unique<Running>(api, options.max_queued_events);
  const bool ipv6 = options.host.find(':') != std::string::npos;
  const std::string address = ipv6 ? fmt::format("[{}]:{}", options.host, options.port)
                                   : fmt::format("{}:{}", options.host, options.port);
  grpc::ServerBuilder builder;
  builder.AddListeningPort(address, CredentialsOf(options), &running->port);
  // Without this, a second server could share the port unnoticed.
  builder.AddChannelArgument(GRPC_ARG_ALLOW_REUSEPORT, 0);
  builder.AddChannelArgument(GRPC_ARG_SERVER_HANDSHAKE_TIMEOUT_MS, kHandshakeTimeoutMs);
  builder.AddChannelArgument(GRPC_ARG_MAX_METADATA_SIZE, options.max_metadata_bytes);
  builder.AddChannelArgument(GRPC_ARG_MAX_CONCURRENT_STREAMS,
                             options.max_concurrent_streams);
  builder.SetMaxReceiveMessageSize(options.max_message_bytes);
  builder.RegisterService(&running->service);
  running->server = builder.BuildAndStart();
  if (running->server == nullptr || running->port == 0) {
    return UnavailableF("can't listen on {}", address);
  }
  return std::unique_ptr<ApiGrpcServer>(new ApiGrpcServer(std::move(running)));
}

ApiGrpcServer::ApiGrpcServer(std::unique_ptr<Running> running)
    : running_(std::move(running)) {}

ApiGrpcServer::~ApiGrpcServer() { Stop(absl::ZeroDuration()); }

uint16_t ApiGrpcServer::port() const { return static_cast<uint16_t>(running_->port); }

void ApiGrpcServer::Stop(absl::Duration timeout) {
  const absl::Time deadline = running_->service.context().clock->Now() + timeout;
  running_->server->Shutdown(absl::ToChronoTime(deadline));
}

}  // namespace tessera::coordinator
