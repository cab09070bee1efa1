#include "cli/client/http_client.h"

#include <cstdint>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include <sys/eventfd.h>
#include <unistd.h>

#include "common/mutex.h"
#include "tests/testing/scripted_http_server.h"
#include "tests/testing/status_matchers.h"

namespace tessera::cli {
namespace {

using ::tessera::testing::IsOk;
using ::tessera::testing::ReceivedRequest;
using ::tessera::testing::ScriptedAnswer;
using ::tessera::testing::ScriptedHttpServer;
using ::tessera::testing::StatusIs;
using ::tessera::testing::StreamAnswer;
using ::tessera::testing::WholeAnswer;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

std::unique_ptr<HttpClient> ClientOf(const HttpClientOptions& options) {
  auto client = HttpClient::Create(options);
  EXPECT_THAT(client, IsOk());
  return std::move(*client);
}

ScriptedAnswer Raw(const std::string& bytes) {
  ScriptedAnswer answer;
  answer.pieces = {bytes};
  answer.close = true;
  return answer;
}

TEST(ParseHttpUrl, ReadsHostPortAndPath) {
  const auto url = ParseHttpUrl("http://127.0.0.1:8000/api/");
  ASSERT_THAT(url, IsOk());
  EXPECT_EQ(url->host, "127.0.0.1");
  EXPECT_EQ(url->port, "8000");
  EXPECT_EQ(url->path, "/api");
}

TEST(ParseHttpUrl, TakesTheBracketsOffAnAddress) {
  const auto url = ParseHttpUrl("http://[::1]");
  ASSERT_THAT(url, IsOk());
  EXPECT_EQ(url->host, "::1");
  EXPECT_EQ(url->port, "80");
  EXPECT_EQ(url->path, "");
}

TEST(ParseHttpUrl, HttpsIsTlsAndHasAPortOfItsOwn) {
  const auto url = ParseHttpUrl("https://host/v1");
  ASSERT_THAT(url, IsOk());
  EXPECT_TRUE(url->tls);
  EXPECT_EQ(url->host, "host");
  EXPECT_EQ(url->port, "443");
  EXPECT_FALSE(ParseHttpUrl("http://host")->tls);
}

TEST(HttpClient, AuthoritiesThatCannotBeReadAreNamed) {
  const auto client = HttpClient::Create({.url = "https://host", .ca_file = "/no/file"});
  EXPECT_THAT(client.status(),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("/no/file")));
}

TEST(ParseHttpUrl, RefusesWhatItCannotReach) {
  for (const char* url :
       {"", "127.0.0.1:8000", "ftp://host", "http://", "http://:80",
        "http://host:", "http://host:x", "http://host:65536", "http://host:999999999999",
        "http://[::1", "http://[::1]x", "http://user@host", "http://host/?q",
        "http://ho st", "http://host\r\nX: y", "http://a:1:2"}) {
    EXPECT_THAT(ParseHttpUrl(url), StatusIs(absl::StatusCode::kInvalidArgument)) << url;
  }
}

TEST(HttpClient, PostsUnderThePathOfItsUrlWithItsHeaders) {
  ReceivedRequest seen;
  ScriptedHttpServer server([&seen](const ReceivedRequest& request) {
    seen = request;
    return WholeAnswer(201, "application/json", "{}");
  });
  const auto client =
      ClientOf({.url = server.url() + "/prefix", .headers = {{"Authorization", "key"}}});
  const auto reply = client->Post("/v1/x", R"({"a":1})");
  ASSERT_THAT(reply, IsOk());
  EXPECT_EQ(reply->status, 201);
  EXPECT_EQ(reply->body, "{}");
  EXPECT_EQ(seen.method, "POST");
  EXPECT_EQ(seen.target, "/prefix/v1/x");
  EXPECT_EQ(seen.authorization, "key");
  EXPECT_EQ(seen.body, R"({"a":1})");
}

TEST(HttpClient, KeepsItsConnection) {
  ScriptedHttpServer server(
      [](const ReceivedRequest&) { return WholeAnswer(200, "text/plain", "a"); });
  const auto client = ClientOf({.url = server.url()});
  for (int i = 0; i < 3; ++i) {
    ASSERT_THAT(client->Get("/"), IsOk());
  }
  EXPECT_EQ(server.num_connections(), 1);
}

TEST(HttpClient, ConnectsAgainAfterTheServerClosed) {
  ScriptedHttpServer server([](const ReceivedRequest&) {
    return Raw("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 1\r\n\r\na");
  });
  const auto client = ClientOf({.url = server.url()});
  ASSERT_THAT(client->Get("/"), IsOk());
  ASSERT_THAT(client->Get("/"), IsOk());
  EXPECT_EQ(server.num_connections(), 2);
}

TEST(HttpClient, ReadsAnAnswerThatEndsWithItsConnection) {
  ScriptedHttpServer server(
      [](const ReceivedRequest&) { return Raw("HTTP/1.1 200 OK\r\n\r\nto the end"); });
  const auto reply = ClientOf({.url = server.url()})->Get("/");
  ASSERT_THAT(reply, IsOk());
  EXPECT_EQ(reply->body, "to the end");
}

TEST(HttpClient, HandsOutEventsBeforeTheAnswerEnds) {
  Notification first_seen;
  ScriptedHttpServer server([&first_seen](const ReceivedRequest&) {
    ScriptedAnswer answer = StreamAnswer({"one", "two"});
    answer.after_piece = [&first_seen](size_t written) {
      if (written == 2) {
        first_seen.WaitForNotification();
      }
    };
    return answer;
  });
  std::vector<std::string> seen;
  const auto client = ClientOf({.url = server.url()});
  const auto reply = client->PostForEvents("/", "{}", [&](const SseEvent& event) {
    seen.push_back(event.data);
    if (seen.size() == 1) {
      first_seen.Notify();
    }
    return true;
  });
  ASSERT_THAT(reply, IsOk());
  EXPECT_THAT(seen, ElementsAre("one", "two"));
  ASSERT_THAT(client->Get("/"), IsOk());
  EXPECT_EQ(server.num_connections(), 1);
}

TEST(HttpClient, EventsLargerThanItsBufferArriveWhole) {
  const std::string large(100000, 'x');
  ScriptedHttpServer server([&large](const ReceivedRequest&) {
    return StreamAnswer({large, "end"});
  });
  std::vector<size_t> sizes;
  ASSERT_THAT(ClientOf({.url = server.url()})
                  ->PostForEvents("/", "{}",
                                  [&](const SseEvent& event) {
                                    sizes.push_back(event.data.size());
                                    return true;
                                  }),
              IsOk());
  EXPECT_THAT(sizes, ElementsAre(large.size(), 3U));
}

TEST(HttpClient, AStreamThatIsCutOffIsUnavailable) {
  ScriptedHttpServer server([](const ReceivedRequest&) {
    ScriptedAnswer answer = StreamAnswer({"one"});
    answer.pieces.pop_back();
    answer.close = true;
    return answer;
  });
  int num_events = 0;
  EXPECT_THAT(ClientOf({.url = server.url()})
                  ->PostForEvents("/", "{}",
                                  [&](const SseEvent&) {
                                    ++num_events;
                                    return true;
                                  }),
              StatusIs(absl::StatusCode::kUnavailable));
  EXPECT_EQ(num_events, 1);
}

TEST(HttpClient, ASinkThatHasEnoughEndsTheConnection) {
  ScriptedHttpServer server([](const ReceivedRequest&) {
    return StreamAnswer({"one", "two", "three"});
  });
  const auto client = ClientOf({.url = server.url()});
  int num_events = 0;
  EXPECT_THAT(
      client->PostForEvents("/", "{}", [&](const SseEvent&) { return ++num_events < 2; }),
      IsOk());
  EXPECT_EQ(num_events, 2);
  ASSERT_THAT(client->PostForEvents("/", "{}", [](const SseEvent&) { return true; }),
              IsOk());
  EXPECT_EQ(server.num_connections(), 2);
}

TEST(HttpClient, AnErrorIsNotAStream) {
  ScriptedHttpServer server(
      [](const ReceivedRequest&) { return WholeAnswer(400, "application/json", "no"); });
  const auto reply =
      ClientOf({.url = server.url()})->PostForEvents("/", "{}", [](const SseEvent&) {
        return true;
      });
  ASSERT_THAT(reply, IsOk());
  EXPECT_EQ(reply->status, 400);
  EXPECT_EQ(reply->body, "no");
}

TEST(HttpClient, ASilentServerTimesOut) {
  Notification over;
  ScriptedHttpServer server([&over](const ReceivedRequest&) {
    over.WaitForNotification();
    return WholeAnswer(200, "text/plain", "late");
  });
  const auto client =
      ClientOf({.url = server.url(), .read_timeout = absl::Milliseconds(20)});
  EXPECT_THAT(client->Get("/"), StatusIs(absl::StatusCode::kDeadlineExceeded));
  over.Notify();
}

TEST(HttpClient, TheDescriptorCancelsWhatRunsAndWhatFollowsUntilItIsRead) {
  Notification over;
  ScriptedHttpServer server([&over](const ReceivedRequest& request) {
    if (request.target == "/slow") {
      over.WaitForNotification();
    }
    return WholeAnswer(200, "text/plain", "late");
  });
  const int event = ::eventfd(0, EFD_CLOEXEC);
  const auto client = ClientOf({.url = server.url(), .cancel_descriptor = event});
  ASSERT_THAT(client->Get("/fast"), IsOk());
  uint64_t value = 1;
  std::thread other([event, value] {
    ASSERT_EQ(::write(event, &value, sizeof(value)), ssize_t{sizeof(value)});
  });
  EXPECT_THAT(client->Get("/slow"), StatusIs(absl::StatusCode::kCancelled));
  other.join();
  EXPECT_THAT(client->Get("/slow"), StatusIs(absl::StatusCode::kCancelled));
  ASSERT_EQ(::read(event, &value, sizeof(value)), ssize_t{sizeof(value)});
  EXPECT_THAT(client->Get("/fast"), IsOk());
  over.Notify();
  ::close(event);
}

TEST(HttpClient, NobodyListensIsUnavailable) {
  std::string url;
  {
    ScriptedHttpServer server(
        [](const ReceivedRequest&) { return WholeAnswer(200, "text/plain", ""); });
    url = server.url();
  }
  EXPECT_THAT(ClientOf({.url = url})->Get("/"),
              StatusIs(absl::StatusCode::kUnavailable, HasSubstr("connecting to")));
}

TEST(HttpClient, WhatIsNotHttpIsRefused) {
  ScriptedHttpServer server(
      [](const ReceivedRequest&) { return Raw("SSH-2.0-OpenSSH_9.2\r\n\r\n"); });
  EXPECT_THAT(ClientOf({.url = server.url()})->Get("/"),
              StatusIs(absl::StatusCode::kDataLoss));
}

TEST(HttpClient, AnAnswerAboveTheLimitIsRefused) {
  ScriptedHttpServer server([](const ReceivedRequest&) {
    return WholeAnswer(200, "text/plain", std::string(65, 'x'));
  });
  EXPECT_THAT(ClientOf({.url = server.url(), .body_bytes_max = 64})->Get("/"),
              StatusIs(absl::StatusCode::kResourceExhausted));
}

TEST(HttpClient, AHeaderWithALineEndIsRefused) {
  EXPECT_THAT(HttpClient::Create({.url = "http://host", .headers = {{"A", "b\r\nC: d"}}}),
              StatusIs(absl::StatusCode::kInvalidArgument));
}

}  // namespace
}  // namespace tessera::cli
