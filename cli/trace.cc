// tessera trace: one prompt through the plans and steps of serving; writes the
// intermediates under the names of the golden files.
#include <algorithm>
#include <cstdint>
#include <fstream>
#include <iostream>
#include <map>
#include <memory>
#include <sstream>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "cli/loaded_model.h"
#include "cli/model_options.h"
#include "cli/ranks/process_group_registry.h"
#include "cli/ranks/rank_assembly.h"
#include "cli/subcommand.h"
#include "fmt/format.h"
#include "nlohmann/json.hpp"

#include "common/clock.h"
#include "common/option_table.h"
#include "common/status.h"
#include "common/status_macros.h"
#include "model/tensors/safetensors_writer.h"
#include "worker/runner/trace_program.h"
#include "worker/runner/trace_recorder.h"

namespace tessera::cli {
namespace {

struct TraceOptions {
  ModelOptions model;
  std::string ids;
  std::string out;
  std::string dump = "all";
  int64_t max_tokens = 0;
};

// "[1, 2, 3]", or the path of a file with such a list.
absl::StatusOr<std::vector<int32_t>> ReadIds(const std::string& text,
                                             const model::ModelConfig& config) {
  std::string list = text;
  if (text.empty() || text.front() != '[') {
    std::ifstream file(text);
    if (!file) {
      return InvalidArgumentF("--ids {}: neither a list like [1, 2, 3] nor a file", text);
    }
    std::ostringstream content;
    content << file.rdbuf();
    list = content.str();
  }
  const nlohmann::json parsed = nlohmann::json::parse(list, nullptr, false);
  if (!parsed.is_array() || parsed.empty()) {
    return absl::InvalidArgumentError("--ids: expected a JSON list of token ids");
  }
  std::vector<int32_t> ids;
  for (const nlohmann::json& id : parsed) {
    if (!id.is_number_integer() || id.get<int64_t>() < 0 ||
        id.get<int64_t>() >= config.vocab_size) {
      return InvalidArgumentF("--ids: {} is not a token id, expected 0 to {}", id.dump(),
                              config.vocab_size - 1);
    }
    ids.push_back(id.get<int32_t>());
  }
  return ids;
}

absl::StatusOr<worker::TraceSelection> ReadSelection(const std::string& dump) {
  worker::TraceSelection selection;
  if (dump == "all") {
    return selection;
  }
  const std::map<std::string, bool*> groups = {
      {"logits", &selection.logits}, {"hidden", &selection.hidden},
      {"router", &selection.router}, {"select", &selection.select},
      {"engram", &selection.engram}, {"mtp", &selection.mtp}};
  for (const auto& [name, field] : groups) {
    *field = false;
  }
  std::istringstream words(dump);
  for (std::string word; std::getline(words, word, ',');) {
    const auto it = groups.find(word);
    if (it == groups.end()) {
      return InvalidArgumentF(
          "--dump {}: expected all, or some of logits, hidden, router, select, engram, "
          "mtp",
          word);
    }
    *it->second = true;
  }
  return selection;
}

absl::Status WriteTrace(const std::string& path, const worker::TraceRequest& request,
                        const std::vector<int32_t>& generated,
                        const std::map<std::string, worker::RecordedTensor>& tensors) {
  model::SafetensorsWriter writer;
  TESSERA_RETURN_IF_ERROR(writer.AddValues("ids",
                                           {static_cast<int64_t>(request.ids.size())},
                                           std::span<const int32_t>(request.ids)));
  if (!generated.empty()) {
    TESSERA_RETURN_IF_ERROR(writer.AddValues("greedy.ids",
                                             {static_cast<int64_t>(generated.size())},
                                             std::span<const int32_t>(generated)));
  }
  for (const auto& [name, tensor] : tensors) {
    TESSERA_RETURN_IF_ERROR(writer.Add(name, tensor.dtype, tensor.shape, tensor.data));
  }
  return writer.Write(path);
}

// One thread per rank; the first data-parallel group computes, the others keep the
// collectives going.
absl::StatusOr<std::vector<int32_t>> TraceInProcess(const LoadedModel& model,
                                                    const GroupShape& shape,
                                                    const RankOptions& options,
                                                    const worker::TraceRequest& request,
                                                    worker::TraceRecorder* recorder) {
  TESSERA_ASSIGN_OR_RETURN(const EngramSourceFactory engram,
                           ResidentEngram(model, Clock::Real()));
  TESSERA_ASSIGN_OR_RETURN(
      std::vector<AssembledRank> ranks,
      AssembleLocalGroup(model, shape, options, engram, Clock::Real()));
  std::vector<absl::StatusOr<std::vector<int32_t>>> results(ranks.size(),
                                                            std::vector<int32_t>());
  std::vector<std::thread> threads;
  for (size_t rank = 0; rank < ranks.size(); ++rank) {
    threads.emplace_back([&, rank] {
      worker::TraceRequest mine = request;
      mine.idle = static_cast<int>(rank) >= shape.tp;
      results[rank] =
          worker::RunTrace(model.config, mine, options.runner.max_tokens,
                           *ranks[rank].runner, rank == 0 ? recorder : nullptr);
      if (!results[rank].ok()) {
        ranks[rank].groups.Abort("a rank of the trace failed");
      }
    });
  }
  for (std::thread& thread : threads) {
    thread.join();
  }
  for (const auto& result : results) {
    TESSERA_RETURN_IF_ERROR(result.status());
  }
  return results[0];
}

// This process's rank of a job of processes.
absl::StatusOr<std::vector<int32_t>> TraceAsProcess(ProcessGroup& group,
                                                    const LoadedModel& model,
                                                    const GroupShape& shape,
                                                    const RankOptions& options,
                                                    const worker::TraceRequest& request,
                                                    worker::TraceRecorder* recorder) {
  TESSERA_ASSIGN_OR_RETURN(const HostPosition position, PositionOnHost());
  TESSERA_ASSIGN_OR_RETURN(const ProcessDevices devices,
                           DevicesOfProcess(options, position));
  const worker::ProcessRank own = {.devices = devices.devices.get(),
                                   .local = devices.local};
  TESSERA_ASSIGN_OR_RETURN(RankGroups groups,
                           JoinGroups(group, shape, own, options.comm, Clock::Real()));
  TESSERA_ASSIGN_OR_RETURN(const EngramSourceFactory engram,
                           ResidentEngram(model, Clock::Real()));
  TESSERA_ASSIGN_OR_RETURN(auto source, engram(group.rank()));
  TESSERA_ASSIGN_OR_RETURN(const AssembledRank rank,
                           AssembleRank(model, options, own, std::move(groups),
                                        std::move(source), Clock::Real()));
  worker::TraceRequest mine = request;
  mine.idle = group.rank() >= shape.tp;
  return worker::RunTrace(model.config, mine, options.runner.max_tokens, *rank.runner,
                          group.rank() == 0 ? recorder : nullptr);
}

absl::Status Trace(const TraceOptions& options, const GroupShape& shape) {
  TESSERA_ASSIGN_OR_RETURN(const std::unique_ptr<LoadedModel> model,
                           LoadModel(options.model.model, options.model.load));
  TESSERA_ASSIGN_OR_RETURN(
      RankOptions rank_options,
      RankOptionsOf(options.model, model->config, shape.num_ranks()));
  TESSERA_ASSIGN_OR_RETURN(const worker::TraceSelection selection,
                           ReadSelection(options.dump));
  worker::TraceRequest request;
  TESSERA_ASSIGN_OR_RETURN(request.ids, ReadIds(options.ids, model->config));
  request.drafts = selection.mtp;
  request.greedy_tokens = options.max_tokens;
  request.block_size = rank_options.runner.block_size;
  request.placement_version = rank_options.placement_version;
  const auto length =
      static_cast<int64_t>(request.ids.size()) + std::max<int64_t>(options.max_tokens, 1);
  if (length > rank_options.runner.max_model_len) {
    return InvalidArgumentF("{} tokens with their continuation, at most {}", length,
                            rank_options.runner.max_model_len);
  }
  if (model->config.tail_tokens() > 0) {
    // A trace keeps every tail block of its sequence.
    worker::RunnerOptions& runner = rank_options.runner;
    runner.num_tail_blocks = (length + runner.block_size - 1) / runner.block_size;
  }
  worker::TraceRecorder recorder(selection);
  std::vector<int32_t> generated;
  std::unique_ptr<ProcessGroup> group;
  if (options.model.comm == "mpi") {
    TESSERA_ASSIGN_OR_RETURN(group, JoinProcessGroup(Clock::Real()));
    const auto result =
        TraceAsProcess(*group, *model, shape, rank_options, request, &recorder);
    if (!result.ok()) {
      std::cerr << "tessera trace: rank " << group->rank() << ": " << result.status()
                << '\n';
      ExitAfterGroupFault(1);
    }
    generated = *result;
    TESSERA_RETURN_IF_ERROR(group->Finalize());
    if (group->rank() != 0) {
      return absl::OkStatus();
    }
  } else {
    TESSERA_ASSIGN_OR_RETURN(
        generated, TraceInProcess(*model, shape, rank_options, request, &recorder));
  }
  const auto tensors = recorder.Finish(true);
  TESSERA_RETURN_IF_ERROR(
      WriteTrace(options.out, request,
                 options.max_tokens > 0 ? generated : std::vector<int32_t>(), tensors));
  std::cout << fmt::format("{} tensors of {} tokens -> {}\n", tensors.size() + 1,
                           request.ids.size(), options.out);
  return absl::OkStatus();
}

}  // namespace

absl::Status RunTrace(Arguments arguments) {
  TraceOptions options;
  OptionTable table("trace",
                    "Runs one prompt through the forward pass of serving and writes its "
                    "intermediates as a safetensors file.");
  AddModelOptions(&table, &options.model);
  table.Heading("Trace");
  table.Add("ids", &options.ids, "token ids of the prompt: \"[1, 2, 3]\" or a file");
  table.Add("out", &options.out, "file to write");
  table.Add("dump", &options.dump,
            "all, or a list of logits,hidden,router,select,engram,mtp");
  table
      .Add("max-tokens", &options.max_tokens,
           "greedy continuation, as greedy.ids; 0: none")
      .Range(0, 1 << 20);
  TESSERA_ASSIGN_OR_RETURN(const bool go_on, ParseOptions(&table, arguments));
  if (!go_on) {
    return absl::OkStatus();
  }
  for (const auto& [name, value] :
       {std::pair{"a model folder", options.model.model}, std::pair{"--ids", options.ids},
        std::pair{"--out", options.out}}) {
    if (value.empty()) {
      return InvalidArgumentF("{} is missing", name);
    }
  }
  TESSERA_ASSIGN_OR_RETURN(const GroupShape shape, ShapeOf(options.model));
  if (options.model.comm == "mpi" && !InProcessGroupJob()) {
    std::vector<std::string> again = {"trace"};
    again.insert(again.end(), arguments.begin(), arguments.end());
    return ReplaceByJob(shape.num_ranks(), again);
  }
  TESSERA_RETURN_IF_ERROR(PlaceRank(&options.model));
  return Trace(options, shape);
}

}  // namespace tessera::cli
