// What an expert exchange moves and takes as ranks grow: one line per group size with the
// messages and bytes that the Communicator counted, whether they equal the formula
// (exchange_volume.h), what random routing lets expect, and the time of an exchange.
// As a job of processes (mpirun -n R exchange_bench) the group is that job; alone,
// threads of this process, 2 to 16. exchange_scaling.py starts the jobs and writes the
// table. The sizes are V4-Flash's (256 experts, 6 per token, 4096 values) with 64 tokens
// a rank. `--rows=fp8`: rows are sent as codes and scales; its time has the packing.
#include <algorithm>
#include <cstdlib>
#include <iostream>
#include <memory>
#include <numeric>
#include <random>
#include <string_view>
#include <thread>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "cli/ranks/process_group_registry.h"
#include "fmt/format.h"

#include "common/clock.h"
#include "common/status_macros.h"
#include "kernels/kernel_backend.h"
#include "worker/comm/exchange_volume.h"
#include "worker/comm/in_process/in_process_group.h"

namespace tessera {
namespace {

using kernels::DType;
using kernels::TensorView;

constexpr int kExperts = 256;
constexpr int64_t kSlots = 6;
constexpr int64_t kHidden = 4096;
constexpr int64_t kTokens = 64;  // of each rank
constexpr int kExchanges = 20;
constexpr uint32_t kSeed = 20261126;

worker::ExpertExchangeOptions Options(int ranks, worker::DispatchRows rows) {
  worker::ExpertExchangeOptions options;
  options.rows = rows;
  options.max_tokens = kTokens;
  options.hidden_size = kHidden;
  options.experts_per_token = kSlots;
  for (int expert = 0; expert < kExperts; ++expert) {
    options.expert_owner.push_back(expert * ranks / kExperts);
  }
  return options;
}

// The same on every rank.
std::vector<std::vector<int32_t>> Routing(int ranks) {
  std::mt19937 random(kSeed);
  std::vector<std::vector<int32_t>> routing(static_cast<size_t>(ranks));
  std::vector<int32_t> experts(kExperts);
  std::iota(experts.begin(), experts.end(), 0);
  for (std::vector<int32_t>& ids : routing) {
    for (int64_t t = 0; t < kTokens; ++t) {
      std::ranges::shuffle(experts, random);
      ids.insert(ids.end(), experts.begin(), experts.begin() + kSlots);
    }
  }
  return routing;
}

absl::Status Exchange(worker::ExpertExchange* exchange, kernels::Stream& stream,
                      std::vector<int32_t>* ids) {
  std::vector<float> x(static_cast<size_t>(kTokens * kHidden), 1);
  std::vector<float> weights(ids->size(), 0.5f);
  TESSERA_ASSIGN_OR_RETURN(
      const worker::ExpertBatch batch,
      exchange->Dispatch(stream, TensorView(x.data(), DType::kF32, {kTokens, kHidden}),
                         TensorView(ids->data(), DType::kI32, {kTokens, kSlots}),
                         TensorView(weights.data(), DType::kF32, {kTokens, kSlots})));
  std::fill_n(static_cast<float*>(batch.out.data), batch.out.dim(0) * kHidden, 2.0f);
  std::vector<float> out(x.size());
  return exchange->Combine(stream,
                           TensorView(out.data(), DType::kF32, {kTokens, kHidden}));
}

// Rank 0 prints its line; every rank fails where its counters are not the formula's.
absl::Status Measure(worker::Communicator& ep, worker::DispatchRows rows) {
  const worker::ExpertExchangeOptions options = Options(ep.size(), rows);
  std::vector<std::vector<int32_t>> routing = Routing(ep.size());
  TESSERA_ASSIGN_OR_RETURN(
      const std::unique_ptr<kernels::KernelBackend> backend,
      kernels::CreateBackend({.name = "cpu", .dtype = DType::kF32, .num_threads = 1}));
  TESSERA_ASSIGN_OR_RETURN(const std::unique_ptr<kernels::Stream> stream,
                           backend->CreateStream());
  TESSERA_ASSIGN_OR_RETURN(
      const std::unique_ptr<worker::ExpertExchange> exchange,
      worker::ExpertExchange::Create(options, backend.get(), {.ep = &ep}));
  TESSERA_RETURN_IF_ERROR(ep.Barrier());
  const worker::CommStats before = ep.stats();
  std::vector<double> micros;
  for (int i = 0; i < kExchanges; ++i) {
    const absl::Time start = Clock::Real()->Now();
    TESSERA_RETURN_IF_ERROR(
        Exchange(exchange.get(), *stream, &routing[static_cast<size_t>(ep.rank())]));
    micros.push_back(absl::ToDoubleMicroseconds(Clock::Real()->Now() - start));
  }
  const worker::CommStats after = ep.stats();
  const worker::ExchangeVolume formula =
      worker::VolumeOf(options, sizeof(float), routing, ep.rank());
  const auto messages =
      static_cast<int64_t>(after.messages - before.messages) / kExchanges;
  const auto bytes = static_cast<int64_t>(after.bytes - before.bytes) / kExchanges;
  if (messages != formula.messages ||
      bytes != formula.dispatch_bytes + formula.combine_bytes) {
    return absl::InternalError(fmt::format(
        "rank {} of {}: {} messages and {} bytes, the formula says {} and {} + {}",
        ep.rank(), ep.size(), messages, bytes, formula.messages, formula.dispatch_bytes,
        formula.combine_bytes));
  }
  const worker::ExpectedVolume expected =
      worker::ExpectVolume(options, sizeof(float), ep.size(), kTokens);
  std::ranges::sort(micros);
  if (ep.rank() == 0) {
    std::cout << fmt::format("| {} | {} | {} | {} + {} | {:.0f} | {:.2f} | {:.0f} |",
                             ep.size(), messages, bytes, formula.dispatch_bytes,
                             formula.combine_bytes,
                             expected.dispatch_bytes + expected.combine_bytes,
                             expected.ranks_per_token, micros[micros.size() / 2])
              << '\n'
              << std::flush;
  }
  return ep.Barrier();
}

absl::Status MeasureThreads(int ranks, worker::DispatchRows rows) {
  TESSERA_ASSIGN_OR_RETURN(const std::vector<std::unique_ptr<worker::Communicator>> group,
                           worker::CreateInProcessGroup("ep", ranks, {}, Clock::Real()));
  std::vector<absl::Status> outcomes(group.size());
  {
    std::vector<std::jthread> threads;
    for (size_t i = 0; i < group.size(); ++i) {
      threads.emplace_back(
          [&group, &outcomes, rows, i] { outcomes[i] = Measure(*group[i], rows); });
    }
  }
  for (const absl::Status& outcome : outcomes) {
    TESSERA_RETURN_IF_ERROR(outcome);
  }
  return absl::OkStatus();
}

absl::Status Run(worker::DispatchRows rows) {
  if (cli::InProcessGroupJob()) {
    TESSERA_ASSIGN_OR_RETURN(const std::unique_ptr<cli::ProcessGroup> job,
                             cli::JoinProcessGroup(Clock::Real()));
    {
      TESSERA_ASSIGN_OR_RETURN(const std::unique_ptr<worker::Communicator> ep,
                               job->CreateGroup("ep", 0, {}));
      TESSERA_RETURN_IF_ERROR(Measure(*ep, rows));
    }
    return job->Finalize();
  }
  for (const int ranks : {2, 4, 8, 16}) {
    TESSERA_RETURN_IF_ERROR(MeasureThreads(ranks, rows));
  }
  return absl::OkStatus();
}

}  // namespace
}  // namespace tessera

int main(int argc, char** argv) {
  const bool is_fp8 = argc == 2 && std::string_view(argv[1]) == "--rows=fp8";
  if (argc > 1 && !is_fp8) {
    std::cerr << "usage: exchange_bench [--rows=fp8]\n";
    return EXIT_FAILURE;
  }
  const absl::Status status =
      tessera::Run(is_fp8 ? tessera::worker::DispatchRows::kFp8
                          : tessera::worker::DispatchRows::kActivations);
  if (!status.ok()) {
    std::cerr << status << "\n";
  }
  return status.ok() ? EXIT_SUCCESS : EXIT_FAILURE;
}
