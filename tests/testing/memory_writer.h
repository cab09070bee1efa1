// MemoryWriter: a ResponseWriter that keeps the answer, and whose executor runs when the
// test says so.
#ifndef TESSERA_TESTS_TESTING_MEMORY_WRITER_H_
#define TESSERA_TESTS_TESTING_MEMORY_WRITER_H_

#include <deque>
#include <functional>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "coordinator/api/http_message.h"

namespace tessera::tests {

// One thread only.
class MemoryWriter final : public coordinator::ResponseWriter {
 public:
  void Respond(coordinator::HttpResponse response) override {
    answer = std::move(response);
  }
  void StartStream(coordinator::HttpResponse head) override { stream = std::move(head); }
  void Write(std::string data) override { chunks.push_back(std::move(data)); }
  void Finish(bool close) override { finished = close; }
  void OnDisconnect(std::function<void()> handler) override {
    disconnect_ = std::move(handler);
  }
  void Post(std::function<void()> task) override { tasks_.push_back(std::move(task)); }

  // Runs what was posted, tasks that tasks post included.
  void Run() {
    while (!tasks_.empty()) {
      const std::function<void()> task = std::move(tasks_.front());
      tasks_.pop_front();
      task();
    }
  }

  // The client leaves.
  void Disconnect() {
    if (disconnect_) {
      std::exchange(disconnect_, nullptr)();
    }
  }

  std::optional<coordinator::HttpResponse> answer;
  std::optional<coordinator::HttpResponse> stream;
  std::vector<std::string> chunks;
  std::optional<bool> finished;  // the stream's `close`

 private:
  std::deque<std::function<void()>> tasks_;
  std::function<void()> disconnect_;
};

}  // namespace tessera::tests

#endif  // TESSERA_TESTS_TESTING_MEMORY_WRITER_H_
