// A group whose ranks are threads, each on a device of one simulated machine, and
// scripts of sequences that run on it: what the tests of groups whose decode steps are
// graphs share.
#ifndef TESSERA_TESTS_INTEGRATION_GRAPH_GROUP_H_
#define TESSERA_TESTS_INTEGRATION_GRAPH_GROUP_H_

#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "cli/ranks/rank_assembly.h"

#include "kernels/cuda_sim/sim_machine.h"
#include "kernels/local_devices.h"
#include "proto/step_plan.h"
#include "routing/expert_placement.h"
#include "tests/integration/decode_script.h"
#include "worker/runner/model_runner.h"

namespace tessera::testing {

inline constexpr int32_t kAllLogprobs = 1 << 20;

// With a device for each rank, and all checks on.
std::shared_ptr<kernels::cuda_sim::SimMachine> MakeGroupMachine(
    const cli::GroupShape& shape, uint64_t seed);

// A group, and the plans of its DP ranks. Its machine must find nothing.
class GraphGroup {
 public:
  using Results = std::vector<absl::StatusOr<proto::StepResult>>;

  // On `devices` of the machine; null: those that reach each other. `served` must outlive
  // it. Failures are the test's.
  GraphGroup(const Served& served, const cli::GroupShape& shape,
             const cli::RankOptions& options,
             std::shared_ptr<kernels::cuda_sim::SimMachine> machine,
             std::unique_ptr<kernels::LocalDevices> devices = nullptr);
  ~GraphGroup();
  GraphGroup(const GraphGroup&) = delete;
  GraphGroup& operator=(const GraphGroup&) = delete;

  // Other runners, which want graphs and have captured nothing yet.
  void CreateRunners(
      const routing::ExpertPlacement& placement,
      const std::function<void(size_t, worker::RunnerOptions&)>& change = {});
  routing::ExpertPlacement StaticPlacement() const;
  // Of each rank, all at once.
  std::vector<absl::Status> Capture();

  // Sequence q lives on DP rank q % dp, in its slot q / dp.
  PlanWriter& PlanOf(uint32_t sequence) { return plans_[sequence % num_dp_ranks()]; }
  uint32_t SlotOf(uint32_t sequence) const { return sequence / num_dp_ranks(); }
  uint32_t num_dp_ranks() const { return static_cast<uint32_t>(shape_.dp); }
  const cli::GroupShape& shape() const { return shape_; }
  std::vector<PlanWriter>& plans() { return plans_; }
  std::vector<cli::AssembledRank>& ranks() { return ranks_; }

  void Begin(uint64_t epoch);
  void Decode(const std::vector<uint32_t>& sequences);
  void Admit(uint32_t sequence, uint64_t seed);

  // One step of all ranks that `enters` names, in rank order, with the plans as they are.
  Results Execute(const std::function<bool(size_t)>& enters = {});
  // The same of a step whose plans say of decode steps what the scheduler would.
  Results Step(const std::function<bool(size_t)>& enters = {});

 private:
  const Served& served_;
  const cli::GroupShape shape_;
  const cli::RankOptions options_;
  const std::shared_ptr<kernels::cuda_sim::SimMachine> machine_;
  const std::unique_ptr<kernels::LocalDevices> devices_;
  std::vector<PlanWriter> plans_;
  std::vector<cli::AssembledRank> ranks_;
};

// What sequences do in one step.
struct ScriptStep {
  std::vector<uint32_t> decodes;
  std::vector<std::pair<uint32_t, uint64_t>> admits = {};  // sequence, seed
  std::vector<uint32_t> releases = {};
  bool reports = false;
};

// What a step said.
struct Said {
  std::map<uint32_t, proto::SampledToken> of_sequence;
  std::vector<uint32_t> expert_counts;  // of all DP ranks together
  std::vector<float> imbalance;         // of each DP rank
  std::vector<uint32_t> graph_rows;     // of each rank
  std::vector<uint32_t> num_tokens;
};

// The group's next step.
Said RunStep(GraphGroup& group, const ScriptStep& step);
// Every step of `script` on one rank with `num_slots` slots, eagerly.
std::vector<Said> RunAlone(const Served& served, int64_t num_slots,
                           const std::vector<ScriptStep>& script,
                           std::string_view numerics = "f32");
// Runs `script` on a group with `num_slots` slots a rank, by graphs wherever that can be:
// all of it is what `alone` says.
void ExpectTheBitsOfOneRank(GraphGroup& group, int64_t num_slots,
                            const std::vector<ScriptStep>& script,
                            const std::vector<Said>& alone);

}  // namespace tessera::testing

#endif  // TESSERA_TESTS_INTEGRATION_GRAPH_GROUP_H_
