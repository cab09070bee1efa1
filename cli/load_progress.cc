#include "cli/load_progress.h"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <iostream>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "cli/loaded_model.h"
#include "cli/ranks/rank_assembly.h"
#include "fmt/format.h"
#include <unistd.h>

#include "common/clock.h"
#include "common/log.h"
#include "common/mutex.h"
#include "common/status_macros.h"
#include "engram_store/table/parallel.h"
#include "routing/expert_placement.h"
#include "worker/runner/weights/weight_loader.h"

namespace tessera::cli {
namespace {

constexpr int64_t kPageBytes = 4096;
constexpr int64_t kPieceBytes = int64_t{8} << 20;
constexpr double kGib = 1024.0 * 1024 * 1024;
constexpr int kBarWidth = 40;
constexpr absl::Duration kBarInterval = absl::Milliseconds(100);
constexpr absl::Duration kLineInterval = absl::Seconds(2);

// Of several threads.
class Progress {
 public:
  Progress(uint64_t total, bool quiet, Clock* clock)
      : total_(total),
        quiet_(quiet),
        clock_(clock),
        begin_(clock->Now()),
        terminal_(::isatty(STDERR_FILENO) != 0),
        shown_(begin_) {}

  void Add(uint64_t bytes) {
    const MutexLock lock(&mutex_);
    done_ += bytes;
    const absl::Time now = clock_->Now();
    if (quiet_ || now - shown_ < (terminal_ ? kBarInterval : kLineInterval)) {
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
    const MutexLock lock(&mutex_);
    if (drawn_) {
      Draw();
      std::cerr << '\n';
    }
    const double seconds = absl::ToDoubleSeconds(clock_->Now() - begin_);
    log::Info("weights", "read",
              {{"bytes", done_},
               {"seconds", seconds},
               {"gib_per_second", static_cast<double>(done_) / kGib / seconds}});
  }

 private:
  void Draw() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    const double share = static_cast<double>(done_) / static_cast<double>(total_);
    const int filled = static_cast<int>(share * kBarWidth);
    std::cerr << fmt::format("\rreading weights [{:<{}}] {:3.0f} %",
                             std::string(static_cast<size_t>(filled), '#'), kBarWidth,
                             share * 100)
              << std::flush;
  }

  const uint64_t total_;
  const bool quiet_;
  Clock* const clock_;
  const absl::Time begin_;
  const bool terminal_;
  Mutex mutex_;
  absl::Time shown_ ABSL_GUARDED_BY(mutex_);
  bool drawn_ ABSL_GUARDED_BY(mutex_) = false;
  uint64_t done_ ABSL_GUARDED_BY(mutex_) = 0;
};

std::vector<worker::ByteRegion> Pieces(const std::vector<worker::ByteRegion>& regions) {
  std::vector<worker::ByteRegion> pieces;
  for (const worker::ByteRegion& region : regions) {
    if (region.rows > 1) {
      pieces.push_back(region);
      continue;
    }
    for (int64_t at = 0; at < region.bytes; at += kPieceBytes) {
      const int64_t bytes = std::min(kPieceBytes, region.bytes - at);
      pieces.push_back({region.data + at, 1, bytes, bytes});
    }
  }
  return pieces;
}

void Touch(const std::byte* begin, int64_t bytes) {
  unsigned char sum = 0;
  for (int64_t at = 0; at < bytes; at += kPageBytes) {
    sum = static_cast<unsigned char>(sum + static_cast<unsigned char>(begin[at]));
  }
  sum = static_cast<unsigned char>(sum + static_cast<unsigned char>(begin[bytes - 1]));
  // The compiler may not drop the reads.
  volatile const unsigned char sink = sum;
  static_cast<void>(sink);
}

// The experts of `rank` among `ranks`, as the placement of a new group has them; of all
// ranks without one.
absl::StatusOr<std::vector<int>> ExpertsOf(int64_t num_experts, int ranks,
                                           std::optional<int> rank) {
  TESSERA_ASSIGN_OR_RETURN(
      const routing::ExpertPlacement placement,
      routing::MakeStaticPlacement(static_cast<int>(num_experts), ranks, 1));
  std::vector<int> experts;
  for (int expert = 0; expert < placement.num_experts(); ++expert) {
    if (!rank.has_value() ||
        placement.rank_of_expert[static_cast<size_t>(expert)] == *rank) {
      experts.push_back(expert);
    }
  }
  return experts;
}

absl::StatusOr<std::vector<worker::ByteRegion>> RegionsOf(const LoadedModel& model,
                                                          const GroupShape& shape,
                                                          std::optional<int> rank) {
  const int ranks = shape.num_ranks();
  TESSERA_ASSIGN_OR_RETURN(const std::vector<int> experts,
                           ExpertsOf(model.config.moe.num_experts, ranks, rank));
  TESSERA_ASSIGN_OR_RETURN(const std::vector<int> drafts,
                           ExpertsOf(model.config.draft_moe.num_experts, ranks, rank));
  worker::WeightShard shard = {.local_experts = experts, .draft_experts = drafts};
  if (rank.has_value()) {
    shard.tp_rank = *rank % shape.tp;
    shard.tp_size = shape.tp;
  }
  TESSERA_ASSIGN_OR_RETURN(worker::LoadedWeights loaded,
                           worker::LoadWeights(*model.checkpoint, model.config, shard));
  return std::move(loaded.regions);
}

}  // namespace

absl::Status ReadWeights(const LoadedModel& model, const GroupShape& shape,
                         std::optional<int> rank, bool quiet, Clock* clock) {
  if (model.checkpoint->files().empty()) {
    return absl::OkStatus();
  }
  TESSERA_ASSIGN_OR_RETURN(const std::vector<worker::ByteRegion> regions,
                           RegionsOf(model, shape, rank));
  const std::vector<worker::ByteRegion> pieces = Pieces(regions);
  uint64_t total = 0;
  for (const worker::ByteRegion& piece : pieces) {
    total += piece.total();
  }
  Progress progress(total, quiet, clock);
  TESSERA_RETURN_IF_ERROR(engram_store::ParallelFor(
      pieces.size(), engram_store::DefaultLoadThreads(), [&](size_t i) {
        const worker::ByteRegion& piece = pieces[i];
        for (int64_t row = 0; row < piece.rows; ++row) {
          Touch(piece.data + row * piece.stride, piece.bytes);
        }
        progress.Add(piece.total());
        return absl::OkStatus();
      }));
  progress.Finish();
  return absl::OkStatus();
}

}  // namespace tessera::cli
