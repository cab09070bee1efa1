// Invariant 2 of the design across processes: every traced tensor of 20 prompts has the
// same bits as on one rank. Run under mpirun; arguments: the tensor-parallel size, and
// how many ranks make up a node (0: one level). Rank 0 compares and says what it found;
// the other ranks only compute.
#include <cstdint>
#include <cstdlib>
#include <iostream>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "cli/loaded_model.h"
#include "cli/ranks/process_group_registry.h"
#include "cli/ranks/rank_assembly.h"
#include "fmt/format.h"
#include <unistd.h>

#include "common/clock.h"
#include "common/status.h"
#include "common/status_macros.h"
#include "model/tensors/checkpoint.h"
#include "worker/runner/trace_program.h"
#include "worker/runner/trace_recorder.h"

namespace tessera {
namespace {

constexpr int64_t kMaxTokens = 64;

using Tensors = std::map<std::string, worker::RecordedTensor>;

// Cuts of a recorded prompt, 1 to 150 tokens.
absl::StatusOr<std::vector<std::vector<int32_t>>> Prompts() {
  TESSERA_ASSIGN_OR_RETURN(const auto golden, model::Checkpoint::OpenFile(
                                                  "tests/data/demo/golden.safetensors"));
  TESSERA_ASSIGN_OR_RETURN(const model::TensorRef tensor, golden->Find("prompt300.ids"));
  const auto* ids = reinterpret_cast<const int32_t*>(tensor.data.data());
  std::vector<std::vector<int32_t>> prompts;
  for (const int length :
       {1, 2, 3, 5, 8, 13, 16, 17, 21, 31, 32, 33, 34, 47, 48, 64, 65, 79, 128, 150}) {
    prompts.emplace_back(ids + length, ids + 2 * length);
  }
  return prompts;
}

absl::StatusOr<Tensors> Trace(const cli::LoadedModel& model, cli::AssembledRank& rank,
                              const std::vector<int32_t>& ids, uint64_t epoch) {
  worker::TraceRecorder recorder({});
  TESSERA_ASSIGN_OR_RETURN([[maybe_unused]] const std::vector<int32_t> tokens,
                           worker::RunTrace(model.config,
                                            {.ids = ids,
                                             .drafts = true,
                                             .greedy_tokens = 2,
                                             .epoch = epoch,
                                             .placement_version = 1},
                                            kMaxTokens, *rank.runner, &recorder));
  return recorder.Finish(true);
}

absl::Status Compare(const std::vector<int32_t>& ids, const Tensors& expected,
                     const Tensors& actual) {
  if (expected.size() != actual.size()) {
    return InternalF("{} tensors, expected {}", actual.size(), expected.size());
  }
  for (const auto& [name, tensor] : expected) {
    const auto it = actual.find(name);
    if (it == actual.end() || it->second.data != tensor.data) {
      return InternalF("prompt of {} tokens: {} differs", ids.size(), name);
    }
  }
  return absl::OkStatus();
}

absl::Status Run(cli::ProcessGroup& group, const cli::GroupShape& shape) {
  Clock* const clock = Clock::Real();
  TESSERA_ASSIGN_OR_RETURN(const auto model, cli::LoadModel("models/demo"));
  TESSERA_ASSIGN_OR_RETURN(const auto engram, cli::ResidentEngram(*model, clock));
  cli::RankOptions options;
  options.runner.max_tokens = kMaxTokens;
  options.runner.num_blocks = 64;
  TESSERA_ASSIGN_OR_RETURN(const cli::ProcessDevices devices,
                           cli::DevicesOfProcess(options, {}));
  const worker::ProcessRank own = {.devices = devices.devices.get()};
  TESSERA_ASSIGN_OR_RETURN(cli::RankGroups groups,
                           cli::JoinGroups(group, shape, own, options.comm, clock));
  TESSERA_ASSIGN_OR_RETURN(auto source, engram(group.rank()));
  TESSERA_ASSIGN_OR_RETURN(cli::AssembledRank rank,
                           cli::AssembleRank(*model, options, own, std::move(groups),
                                             std::move(source), clock));
  TESSERA_ASSIGN_OR_RETURN(std::vector<cli::AssembledRank> alone,
                           cli::AssembleLocalGroup(*model, {}, options, engram, clock));
  TESSERA_ASSIGN_OR_RETURN(const auto prompts, Prompts());
  uint64_t epoch = 0;
  for (const std::vector<int32_t>& ids : prompts) {
    ++epoch;
    // Every data-parallel group computes the prompt: their rows share the expert
    // exchange.
    TESSERA_ASSIGN_OR_RETURN(const Tensors actual, Trace(*model, rank, ids, epoch));
    if (rank.groups.tp->rank() == 0) {
      TESSERA_ASSIGN_OR_RETURN(const Tensors expected,
                               Trace(*model, alone[0], ids, epoch));
      TESSERA_RETURN_IF_ERROR(Compare(ids, expected, actual));
    }
  }
  if (group.rank() == 0) {
    std::cout << fmt::format("{} prompts: the same bits on {} processes, tp {}\n",
                             prompts.size(), group.size(), shape.tp);
  }
  return absl::OkStatus();
}

int Main(int argc, char** argv) {
  cli::GroupShape shape;
  shape.tp = argc > 1 ? std::atoi(argv[1]) : 1;
  shape.ranks_per_node = argc > 2 ? std::atoi(argv[2]) : 0;
  auto group = cli::JoinProcessGroup(Clock::Real());
  if (group.ok()) {
    shape.dp = (*group)->size() / shape.tp;
  }
  absl::Status status = group.ok() ? Run(**group, shape) : group.status();
  if (status.ok()) {
    // After Run: its communicators are gone.
    status = (*group)->Finalize();
  }
  if (!status.ok()) {
    std::cerr << status << '\n';
    cli::ExitAfterGroupFault(1);
  }
  return 0;
}

}  // namespace
}  // namespace tessera

int main(int argc, char** argv) { return tessera::Main(argc, argv); }
