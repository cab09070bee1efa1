// StubDisk: the disk copies of one rank's plans, without a disk: done some steps later,
// in their order, some of them not at all. When and which is a function of the seed.
// Content is whatever a stub keeps per block.
#ifndef TESSERA_TESTS_TESTING_STUB_DISK_H_
#define TESSERA_TESTS_TESTING_STUB_DISK_H_

#include <cstdint>
#include <deque>
#include <map>
#include <optional>
#include <random>
#include <utility>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"

#include "common/status.h"
#include "proto/step_plan.h"

namespace tessera::testing {

struct StubDiskOptions {
  int64_t num_slots[2] = {};  // of blocks, of tail blocks
  int64_t max_copies = 0;     // under way
  uint64_t max_delay = 3;     // steps
  uint64_t failed_percent = 0;
  uint64_t seed = 0;
};

// External synchronisation.
template <typename Content>
class StubDisk {
 public:
  explicit StubDisk(const StubDiskOptions& options)
      : options_(options), random_(options.seed) {}

  // Takes the copies of a plan, and says in `result` what is done. `host` is the content
  // of a host block, or tail block; null if it has none or does not exist; who reads into
  // it gives it content. kFailedPrecondition: a copy that no worker could make.
  absl::Status Execute(
      const proto::StepPlan& plan,
      absl::FunctionRef<std::optional<Content>(bool tail, uint32_t block)> host,
      absl::FunctionRef<void(bool tail, uint32_t block, const Content&)> fill,
      proto::StepResult* result) {
    while (!under_way_.empty() && under_way_.front().done_at <= plan.step) {
      const Copy copy = std::move(under_way_.front());
      under_way_.pop_front();
      auto& slot = slots_[{copy.named.tail, copy.named.slot}];
      const bool failed =
          copy.fails || (copy.named.fetch && slot.first != copy.named.content);
      if (failed) {
        result->disk_failed.push_back(num_done_);
      } else if (copy.named.fetch) {
        fill(copy.named.tail, copy.named.host, *slot.second);
      } else {
        slot = {copy.named.content, copy.content};
      }
      ++num_done_;
    }
    result->disk_done = num_done_;
    for (const proto::DiskCopy& named : plan.disk_copies) {
      Copy copy = {.named = named,
                   .content = host(named.tail, named.host),
                   .done_at = plan.step + 1 + random_() % options_.max_delay,
                   .fails = random_() % 100 < options_.failed_percent};
      if (int64_t{named.slot} >= options_.num_slots[named.tail ? 1 : 0] ||
          (!named.fetch && !copy.content.has_value()) ||
          static_cast<int64_t>(under_way_.size()) >= options_.max_copies) {
        return StatusF(
            absl::StatusCode::kFailedPrecondition,
            "disk copy of host block {}, with content: {}, and slot {}, fetch: "
            "{}, tail: {}, beside {} others",
            named.host, copy.content.has_value(), named.slot, named.fetch, named.tail,
            under_way_.size());
      }
      under_way_.push_back(std::move(copy));
    }
    return absl::OkStatus();
  }

  // A new epoch.
  void Clear() {
    under_way_.clear();
    slots_.clear();
    num_done_ = 0;
  }

 private:
  struct Copy {
    proto::DiskCopy named;
    std::optional<Content> content;  // of what is to be written
    uint64_t done_at = 0;            // the step; not before those that were named before
    bool fails = false;
  };

  StubDiskOptions options_;
  std::mt19937_64 random_;
  std::deque<Copy> under_way_;
  // By kind and slot: which content, and it.
  std::map<std::pair<bool, uint32_t>, std::pair<uint64_t, std::optional<Content>>> slots_;
  uint64_t num_done_ = 0;
};

}  // namespace tessera::testing

#endif  // TESSERA_TESTS_TESTING_STUB_DISK_H_
