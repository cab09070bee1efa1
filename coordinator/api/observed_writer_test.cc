#include "coordinator/api/observed_writer.h"

#include <atomic>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

#include "gtest/gtest.h"

#include "tests/testing/memory_writer.h"

namespace tessera::coordinator {
namespace {

using tests::MemoryWriter;

class CountingObserver final : public ApiObserver {
 public:
  void OnHttpEnd(std::string_view /*route*/, std::string_view /*method*/, int code,
                 absl::Duration /*duration*/) override {
    ends.fetch_add(1);
    last_code.store(code);
  }
  void OnStreamOpen() override { open.fetch_add(1); }
  void OnStreamClose() override { open.fetch_sub(1); }

  std::atomic<int> ends = 0;
  std::atomic<int> last_code = 0;
  std::atomic<int> open = 0;
};

class Observed : public ::testing::Test {
 protected:
  Observed() {
    context_.rates = &rates_;
    context_.clock = &clock_;
    context_.observer = &observer_;
  }

  std::shared_ptr<ObservedWriter> Wrap(std::shared_ptr<ResponseWriter> next) {
    return std::make_shared<ObservedWriter>(
        &context_, std::move(next), HttpHeaders(),
        ObservedWriter::Labels{"/r", "GET", clock_.Now(), "", false});
  }

  SimulatedClock clock_{absl::FromUnixSeconds(1000)};
  RateLimiter rates_{&clock_};
  CountingObserver observer_;
  ApiContext context_;
};

TEST_F(Observed, AStreamIsCountedWithItsOwnStatusAndClosed) {
  const auto client = std::make_shared<MemoryWriter>();
  const auto writer = Wrap(client);
  writer->OnDisconnect([] {});
  writer->StartStream({});
  EXPECT_EQ(observer_.open.load(), 1);
  client->Disconnect();
  writer->Finish(/*close=*/true);
  EXPECT_EQ(observer_.open.load(), 0);
  EXPECT_EQ(observer_.ends.load(), 1);
  EXPECT_EQ(observer_.last_code.load(), 200);
}

TEST_F(Observed, AStreamThatBeginsAfterItsClientLeftIsNotLeftOpen) {
  const auto client = std::make_shared<MemoryWriter>();
  const auto writer = Wrap(client);
  writer->OnDisconnect([] {});
  client->Disconnect();
  writer->StartStream({});
  writer->Finish(/*close=*/false);
  EXPECT_EQ(observer_.open.load(), 0);
  EXPECT_EQ(observer_.ends.load(), 1);
  EXPECT_EQ(observer_.last_code.load(), 499);
}

// Both threads go on at once when both are here: each spins, then gives way.
class Meeting {
 public:
  void Wait() {
    const int count = arrived_.fetch_add(1) + 1;
    const int all = count + count % 2;
    for (int spins = 0; arrived_.load() < all; ++spins) {
      if (spins > 2000) {
        std::this_thread::yield();
      }
    }
  }

 private:
  std::atomic<int> arrived_ = 0;
};

// A client that leaves while the end of its stream is on its way.
class LeavingClient final : public ResponseWriter {
 public:
  explicit LeavingClient(Meeting* meeting) : meeting_(meeting) {}

  void Respond(HttpResponse /*response*/) override {}
  void StartStream(HttpResponse /*head*/) override {}
  void Write(std::string /*data*/) override {}
  void Finish(bool /*close*/) override { meeting_->Wait(); }
  void OnDisconnect(std::function<void()> handler) override {
    disconnect_ = std::move(handler);
  }
  void Post(std::function<void()> /*task*/) override {}
  void Disconnect() { disconnect_(); }

 private:
  Meeting* const meeting_;
  std::function<void()> disconnect_;
};

TEST_F(Observed, AStreamThatEndsWhileItsClientLeavesIsCountedOnce) {
  constexpr int kRounds = 10000;
  Meeting meeting;
  std::vector<std::shared_ptr<LeavingClient>> clients;
  std::vector<std::shared_ptr<ObservedWriter>> writers;
  for (int i = 0; i < kRounds; ++i) {
    clients.push_back(std::make_shared<LeavingClient>(&meeting));
    writers.push_back(Wrap(clients.back()));
    writers.back()->OnDisconnect([] {});
    writers.back()->StartStream({});
  }
  std::thread leaving([&] {
    for (const auto& client : clients) {
      meeting.Wait();
      client->Disconnect();
    }
  });
  for (const auto& writer : writers) {
    writer->Finish(/*close=*/true);
  }
  leaving.join();
  EXPECT_EQ(observer_.ends.load(), kRounds);
  EXPECT_EQ(observer_.open.load(), 0);
}

}  // namespace
}  // namespace tessera::coordinator
