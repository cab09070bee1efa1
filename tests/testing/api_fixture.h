// ApiFixture: an ApiService over the fakes, and short ways to ask it something.
#ifndef TESSERA_TESTS_TESTING_API_FIXTURE_H_
#define TESSERA_TESTS_TESTING_API_FIXTURE_H_

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "gtest/gtest.h"
#include "nlohmann/json.hpp"

#include "common/clock.h"
#include "coordinator/api/api_service.h"
#include "tests/testing/fake_engine.h"
#include "tests/testing/fake_text.h"
#include "tests/testing/memory_writer.h"

namespace tessera::tests {

// A context of 64 tokens, models "demo" and "alias".
inline coordinator::ApiServiceOptions SmallApiOptions() {
  coordinator::ApiServiceOptions options;
  options.model_names = {"demo", "alias"};
  options.limits.vocab_size = 258;
  options.limits.num_token_ids = 258;
  options.limits.max_model_len = 64;
  options.limits.eos_token_ids = {ByteTokenizer::kEos};
  options.system_fingerprint = "fp-test";
  options.seed = 7;
  options.max_messages = 4;
  options.max_prompts = 3;
  options.max_tools = 2;
  return options;
}

// Keys as --api-key gives them.
inline std::vector<coordinator::ApiKeyRecord> PlainKeys(
    const std::vector<std::string>& keys) {
  std::vector<coordinator::ApiKeyRecord> records;
  for (const std::string& key : keys) {
    records.push_back(
        coordinator::RecordOfPlainKey(key, coordinator::KeyRole::kUser).value());
  }
  return records;
}

// A route that generates, and a body for it without its closing brace.
struct Door {
  const char* path;
  const char* body;
};

inline constexpr Door kDoors[] = {
    {"/v1/chat/completions", R"({"messages":[{"role":"user","content":"a"}])"},
    {"/v1/completions", R"({"prompt":"a")"},
    {"/v1/responses", R"({"input":"a")"},
    {"/v1/messages",
     R"({"model":"demo","max_tokens":1,"messages":[{"role":"user","content":"a"}])"},
};

class ApiFixture : public testing::Test {
 protected:
  ApiFixture() : chat_(&tokenizer_) { Build(SmallApiOptions()); }

  // Replaces the service.
  void Build(const coordinator::ApiServiceOptions& options) {
    coordinator::ApiServiceParts parts;
    parts.tokenizer = &tokenizer_;
    parts.chat = &chat_;
    parts.engine = &engine_;
    parts.clock = time_;
    parts.observer = observer_;
    parts.metrics = metrics_;
    auto service = coordinator::ApiService::Create(options, parts);
    ASSERT_TRUE(service.ok()) << service.status();
    service_ = *std::move(service);
  }

  std::shared_ptr<MemoryWriter> Send(std::string method, std::string target,
                                     std::string body = "",
                                     coordinator::HttpHeaders headers = {}) {
    auto writer = std::make_shared<MemoryWriter>();
    service_->Handle(
        {std::move(method), std::move(target), std::move(headers), std::move(body)},
        writer);
    writer->Run();
    return writer;
  }

  std::shared_ptr<MemoryWriter> Post(const std::string& target, const std::string& body) {
    return Send("POST", target, body);
  }

  coordinator::HttpResponse Get(const std::string& target) {
    return Send("GET", target)->answer.value_or(coordinator::HttpResponse{0, "", {}, ""});
  }

  // The events of a stream as JSON, "[DONE]" as a string. A named event bears its type's
  // name.
  static std::vector<nlohmann::json> Events(const MemoryWriter& writer) {
    std::string all;
    for (const std::string& chunk : writer.chunks) {
      EXPECT_TRUE(chunk.ends_with("\n\n")) << "whole events: " << chunk;
      all += chunk;
    }
    std::vector<nlohmann::json> events;
    for (size_t end = all.find("\n\n"); end != std::string::npos;
         end = all.find("\n\n")) {
      events.push_back(Event(all.substr(0, end)));
      all.erase(0, end + 2);
    }
    return events;
  }

  // One event without the empty line behind it.
  static nlohmann::json Event(std::string text) {
    std::string name;
    if (text.starts_with("event: ")) {
      name = text.substr(7, text.find('\n') - 7);
      text.erase(0, text.find('\n') + 1);
    }
    EXPECT_TRUE(text.starts_with("data: ")) << text;
    EXPECT_EQ(text.find('\n'), std::string::npos) << "one line per event";
    text.erase(0, 6);
    nlohmann::json value =
        text == "[DONE]" ? nlohmann::json(text) : nlohmann::json::parse(text);
    if (!name.empty()) {
      EXPECT_EQ(value["type"], name);
    }
    return value;
  }

  SimulatedClock clock_{absl::FromUnixSeconds(1000)};
  Clock* time_ = &clock_;  // real where sockets need timeouts
  ByteTokenizer tokenizer_;
  PlainChat chat_;
  FakeEngine engine_;
  coordinator::ApiObserver* observer_ = nullptr;
  coordinator::MetricsText* metrics_ = nullptr;
  std::unique_ptr<coordinator::ApiService> service_;
};

}  // namespace tessera::tests

#endif  // TESSERA_TESTS_TESTING_API_FIXTURE_H_
