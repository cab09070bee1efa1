#include "coordinator/api/admin/admin_door.h"

#include <memory>
#include <string>
#include <utility>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"

#include "coordinator/console/web/console_files.h"
#include "tests/testing/api_fixture.h"

namespace tessera::coordinator {
namespace {

using nlohmann::json;
using ::testing::HasSubstr;
using ::testing::Not;

class FakeOperations final : public EngineOperations {
 public:
  EngineReport Report() override {
    EngineReport report;
    report.cordoned = cordoned;
    report.num_requests = 1;
    report.host_blocks_total = 10;
    report.host_blocks_cached = 4;
    report.requests.push_back({.id = "r1",
                               .tenant = "t",
                               .arrival = absl::FromUnixSeconds(990),
                               .deadline = absl::FromUnixSeconds(1600),
                               .prompt_tokens = 5});
    return report;
  }
  void SetCordoned(bool value) override { cordoned = value; }

  bool cordoned = false;
};

class AdminDoorTest : public tessera::tests::ApiFixture {
 protected:
  AdminDoorTest() { BuildDoor(); }

  void BuildDoor(bool console = true, std::vector<ApiKeyRecord> keys = {}) {
    service_.reset();
    // Only the first event of a stream comes inside a test: the clock stands still.
    AdminOptions admin{.facts = {.model = "demo", .tp = 2, .dp = 1, .config = "port: 1"},
                       .console = console,
                       .event_period = absl::Hours(1)};
    door_ = std::make_unique<AdminDoor>(admin, AdminParts{.engine = &engine_,
                                                          .operations = &operations_,
                                                          .activity = &activity_,
                                                          .experts = &experts_,
                                                          .clock = Clock::Real()});
    ApiServiceOptions options = tessera::tests::SmallApiOptions();
    options.access.keys = std::move(keys);
    service_ = *ApiService::Create(options, {.tokenizer = &tokenizer_,
                                             .chat = &chat_,
                                             .engine = &engine_,
                                             .clock = time_,
                                             .admin = door_.get()});
  }

  HttpResponse Ask(const std::string& method, const std::string& path,
                   HttpHeaders headers = {}) {
    if (FindHeader(headers, "host").empty()) {
      headers.emplace_back("host", "127.0.0.1:8000");
    }
    if (method == "POST" && FindHeader(headers, "content-type").empty()) {
      headers.emplace_back("content-type", "application/json");
    }
    return Send(method, path, "", std::move(headers))
        ->answer.value_or(HttpResponse{0, "", {}, ""});
  }

  static ApiKeyRecord Record(const std::string& key, KeyRole role) {
    return RecordOfPlainKey(key, role).value();
  }

  FakeOperations operations_;
  ActivityRecorder activity_{nullptr, Clock::Real()};
  ExpertLoads experts_{{.first_layer = 3, .num_layers = 2, .rank_of_expert = {0, 1}},
                       Clock::Real()};
  std::unique_ptr<AdminDoor> door_;
};

TEST_F(AdminDoorTest, TheStateTellsTheGroupTheQueueAndTheConfiguration) {
  const HttpResponse response = Ask("GET", "/admin/v1/state");
  ASSERT_EQ(response.status, 200);
  const json state = json::parse(response.body);
  EXPECT_EQ(state["server"]["model"], "demo");
  EXPECT_EQ(state["ranks"].size(), 2u);
  EXPECT_EQ(state["health"]["ready"], true);
  EXPECT_EQ(state["queue"]["requests"][0]["id"], "r1");
  EXPECT_EQ(state["queue"]["requests"][0]["prompt_tokens"], 5);
  EXPECT_EQ(state["config"], "port: 1");
  ASSERT_EQ(state["kv"].size(), 1u) << "no step has told of the device";
  EXPECT_EQ(state["kv"][0]["name"], "host");
  EXPECT_EQ(state["kv"][0]["cached"], 4);
  EXPECT_TRUE(state["recent"]["end"].is_array());
}

TEST_F(AdminDoorTest, TheExpertsRouteHasARowPerLayer) {
  experts_.Add(std::vector<uint32_t>{1, 3, 0, 0});
  const HttpResponse response = Ask("GET", "/admin/v1/experts");
  ASSERT_EQ(response.status, 200);
  EXPECT_EQ(json::parse(response.body),
            json::parse(R"({"window_s":60.0,"rank_of_expert":[0,1],"layers":[
                {"layer":3,"recent":[1,3],"total":[1,3],
                 "recent_imbalance":1.5,"total_imbalance":1.5},
                {"layer":4,"recent":[0,0],"total":[0,0],
                 "recent_imbalance":null,"total_imbalance":null}]})"));
  EXPECT_EQ(Ask("POST", "/admin/v1/experts").status, 405);
}

TEST_F(AdminDoorTest, DrainAndUndrainSetTheCordon) {
  EXPECT_EQ(Ask("POST", "/admin/v1/drain").status, 200);
  EXPECT_TRUE(operations_.cordoned);
  EXPECT_EQ(Ask("GET", "/admin/v1/undrain").status, 405);
  EXPECT_TRUE(operations_.cordoned);
  EXPECT_EQ(Ask("POST", "/admin/v1/undrain").status, 200);
  EXPECT_FALSE(operations_.cordoned);
}

TEST_F(AdminDoorTest, WithKeysOnlyAnAdminsKeyOpensIt) {
  BuildDoor(true, {Record("user", KeyRole::kUser), Record("admin", KeyRole::kAdmin)});
  for (const auto& [method, path] :
       {std::pair("GET", "/admin/v1/state"), std::pair("GET", "/admin/v1/experts"),
        std::pair("GET", "/admin/v1/events"), std::pair("POST", "/admin/v1/drain")}) {
    EXPECT_EQ(Ask(method, path).status, 401) << path;
    EXPECT_EQ(Ask(method, path, {{"x-api-key", "user"}}).status, 403) << path;
  }
  EXPECT_FALSE(operations_.cordoned);
  EXPECT_EQ(Ask("POST", "/admin/v1/drain", {{"x-api-key", "admin"}}).status, 200);
  EXPECT_TRUE(operations_.cordoned);
  // With a key the name under which the server is reached does not matter.
  EXPECT_EQ(Ask("GET", "/admin/v1/state", {{"x-api-key", "admin"}, {"host", "gpu-1:80"}})
                .status,
            200);
}

TEST_F(AdminDoorTest, WithoutKeysAForeignPageIsKeptOut) {
  for (const char* host : {"evil.example", "127.evil.example", "[2001:db8::1]:80", "x"}) {
    EXPECT_EQ(Ask("GET", "/admin/v1/state", {{"host", host}}).status, 403) << host;
    EXPECT_EQ(Ask("POST", "/admin/v1/drain", {{"host", host}}).status, 403) << host;
  }
  EXPECT_EQ(Ask("POST", "/admin/v1/drain", {{"origin", "http://evil.example"}}).status,
            403);
  EXPECT_EQ(Ask("POST", "/admin/v1/drain", {{"content-type", "text/plain"}}).status, 400);
  EXPECT_FALSE(operations_.cordoned);
  for (const char* host : {"localhost:8000", "127.0.0.1", "[::1]:8000"}) {
    const std::string origin = std::string("http://") + host;
    EXPECT_EQ(
        Ask("POST", "/admin/v1/undrain", {{"host", host}, {"origin", origin}}).status,
        200)
        << host;
  }
}

TEST_F(AdminDoorTest, EventsBeginAtOnceAndEndWithADrain) {
  const auto writer = Send("GET", "/admin/v1/events", "", {{"host", "localhost:8000"}});
  ASSERT_TRUE(writer->stream.has_value());
  EXPECT_EQ(writer->stream->content_type, "text/event-stream");
  ASSERT_EQ(writer->chunks.size(), 1u);
  EXPECT_TRUE(writer->chunks[0].starts_with("event: state\ndata: {"));
  EXPECT_THAT(writer->chunks[0], Not(HasSubstr("port: 1")));
  service_->SetDraining();
  EXPECT_TRUE(writer->finished.has_value());
  EXPECT_EQ(Ask("GET", "/admin/v1/events").status, 503);
}

TEST_F(AdminDoorTest, ListenersAreBoundedAndALeavingOneMakesRoom) {
  std::vector<std::shared_ptr<tessera::tests::MemoryWriter>> writers;
  for (size_t i = 0; i <= AdminEvents::kMaxListeners; ++i) {
    writers.push_back(Send("GET", "/admin/v1/events", "", {{"host", "localhost"}}));
  }
  EXPECT_EQ(writers.back()->answer->status, 503);
  writers.front()->Disconnect();
  EXPECT_TRUE(
      Send("GET", "/admin/v1/events", "", {{"host", "localhost"}})->stream.has_value());
  door_->CloseStreams();
}

TEST_F(AdminDoorTest, ThePageComesWithAPolicyThatAllowsNothingInline) {
  for (const EmbeddedFile& file : ConsoleFiles()) {
    const HttpResponse response = Ask("GET", "/console/" + std::string(file.name));
    EXPECT_EQ(response.status, 200) << file.name;
    EXPECT_EQ(response.body, file.text) << file.name;
    EXPECT_THAT(response.content_type, Not(HasSubstr("octet-stream"))) << file.name;
    const std::string policy(FindHeader(response.headers, "content-security-policy"));
    EXPECT_THAT(policy, HasSubstr("default-src 'none'"));
    EXPECT_THAT(policy, Not(HasSubstr("unsafe")));
    const std::string etag(FindHeader(response.headers, "etag"));
    EXPECT_EQ(Ask("GET", "/console/" + std::string(file.name), {{"if-none-match", etag}})
                  .status,
              304);
  }
}

TEST_F(AdminDoorTest, ThePageLoadsNothingFromElsewhere) {
  for (const EmbeddedFile& file : ConsoleFiles()) {
    const std::string text(file.text);
    for (const char* trace : {"src=\"http", "href=\"http", "url(http", "@import",
                              "innerHTML", "eval(", "document.write", " style=\""}) {
      EXPECT_THAT(text, Not(HasSubstr(trace))) << file.name;
    }
  }
}

TEST_F(AdminDoorTest, RootLeadsToTheConsole) {
  for (const char* path : {"/", "/console"}) {
    const HttpResponse response = Ask("GET", path);
    EXPECT_EQ(response.status, 307) << path;
    EXPECT_EQ(FindHeader(response.headers, "location"), "/console/");
  }
  EXPECT_EQ(Ask("GET", "/console/").status, 200);
  EXPECT_EQ(Ask("GET", "/console/none.js").status, 404);
  EXPECT_EQ(Ask("POST", "/console/").status, 405);
}

TEST_F(AdminDoorTest, TheConsoleCanBeSwitchedOff) {
  BuildDoor(/*console=*/false);
  EXPECT_EQ(Ask("GET", "/console/").status, 404);
  EXPECT_EQ(Ask("GET", "/").status, 404);
  EXPECT_EQ(Ask("GET", "/admin/v1/state").status, 200);
}

}  // namespace
}  // namespace tessera::coordinator
