#include "cli/load_progress.h"

#include <cstddef>
#include <cstdint>
#include <iostream>
#include <string>

#include "absl/time/time.h"
#include "fmt/format.h"
#include <unistd.h>

#include "common/clock.h"
#include "common/log.h"
#include "model/tensors/checkpoint.h"

namespace tessera::cli {
namespace {

constexpr size_t kPageBytes = 4096;
constexpr int kBarWidth = 40;
constexpr absl::Duration kBarInterval = absl::Milliseconds(100);
constexpr absl::Duration kLineInterval = absl::Seconds(2);

class Progress {
 public:
  Progress(uint64_t total, Clock* clock)
      : total_(total),
        clock_(clock),
        begin_(clock->Now()),
        shown_(begin_),
        terminal_(::isatty(STDERR_FILENO) != 0) {}

  void Add(uint64_t bytes) {
    done_ += bytes;
    const absl::Time now = clock_->Now();
    if (now - shown_ < (terminal_ ? kBarInterval : kLineInterval)) {
      return;
    }
    shown_ = now;
    if (terminal_) {
      drawn_ = true;
      Draw();
    } else {
      log::Info("weights", "reading", {{"percent", done_ * 100 / total_}});
    }
  }

  void Finish() {
    if (drawn_) {
      Draw();
      std::cerr << '\n';
    }
    log::Info(
        "weights", "read",
        {{"bytes", done_}, {"seconds", absl::ToDoubleSeconds(clock_->Now() - begin_)}});
  }

 private:
  void Draw() const {
    const double share = static_cast<double>(done_) / static_cast<double>(total_);
    const int filled = static_cast<int>(share * kBarWidth);
    std::cerr << fmt::format("\rreading weights [{:<{}}] {:3.0f} %",
                             std::string(static_cast<size_t>(filled), '#'), kBarWidth,
                             share * 100)
              << std::flush;
  }

  const uint64_t total_;
  Clock* const clock_;
  const absl::Time begin_;
  absl::Time shown_;
  const bool terminal_;
  bool drawn_ = false;
  uint64_t done_ = 0;
};

bool ReadInPlace(const std::string& name) {
  return name.find(".engram.embed.") == std::string::npos;
}

}  // namespace

void ReadWeights(const model::Checkpoint& checkpoint, Clock* clock) {
  Progress progress(checkpoint.total_bytes(), clock);
  unsigned char sum = 0;
  for (const std::string& name : checkpoint.names()) {
    const auto tensor = checkpoint.Find(name);
    if (!tensor.ok() || !ReadInPlace(name)) {
      continue;
    }
    for (size_t at = 0; at < tensor->data.size(); at += kPageBytes) {
      sum =
          static_cast<unsigned char>(sum + static_cast<unsigned char>(tensor->data[at]));
    }
    progress.Add(tensor->data.size());
  }
  // The compiler may not drop the reads.
  volatile const unsigned char sink = sum;
  static_cast<void>(sink);
  progress.Finish();
}

}  // namespace tessera::cli
