// What the tests of decode steps as graphs share: a model with its rows and prompts, the
// options of its ranks, and a writer of one rank's plans.
#ifndef TESSERA_TESTS_INTEGRATION_DECODE_SCRIPT_H_
#define TESSERA_TESTS_INTEGRATION_DECODE_SCRIPT_H_

#include <cstdint>
#include <limits>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "cli/loaded_model.h"
#include "cli/ranks/rank_assembly.h"

#include "proto/step_plan.h"
#include "tests/testing/tiny_checkpoint.h"

namespace tessera::testing {

// Rows that the host gathers, as those of another host; one request fails.
cli::EngramSourceFactory Gathered(cli::EngramSourceFactory rows,
                                  int num_good = std::numeric_limits<int>::max());

// What the tests run.
struct Served {
  const cli::LoadedModel* model = nullptr;
  cli::EngramSourceFactory engram;
  std::vector<int32_t> ids;  // that prompts are cut from

  bool keeps_tail() const { return model->config.tail_tokens() > 0; }
};

// A tiny model, written to a folder of its own and loaded.
class ServedTiny {
 public:
  // Errors of the loaders.
  static absl::StatusOr<std::unique_ptr<ServedTiny>> Create(const TinyModel& tiny,
                                                            uint64_t seed);
  ~ServedTiny();
  ServedTiny(const ServedTiny&) = delete;
  ServedTiny& operator=(const ServedTiny&) = delete;

  const Served& served() const { return served_; }

 private:
  ServedTiny() = default;

  std::string directory_;
  std::unique_ptr<cli::LoadedModel> loaded_;
  Served served_;
};

// Of ranks that have pages for `max_slots` sequences, and time to capture every bucket.
cli::RankOptions DecodeOptions(const Served& served, int64_t max_slots,
                               bool decode_graphs);

// The plans of one DP rank, one after the other.
class PlanWriter {
 public:
  explicit PlanWriter(const Served* served) : served_(*served) { Begin(1); }

  // The plan of the next step, to be filled.
  proto::StepPlan& plan() { return plan_; }
  void Begin(uint64_t epoch);
  void BeginNextStep();

  // `slot` begins a sequence of its own seed, with the pages of `home`, another slot, and
  // says as many log-probabilities as there are, at most `num_logprobs`.
  void Admit(uint32_t slot, uint32_t home, uint64_t seed, int32_t num_logprobs = 5);
  void Decode(const std::vector<uint32_t>& slots);

 private:
  std::vector<int32_t> Prompt(uint64_t seed) const;

  const Served& served_;
  proto::StepPlan plan_;
};

}  // namespace tessera::testing

#endif  // TESSERA_TESTS_INTEGRATION_DECODE_SCRIPT_H_
