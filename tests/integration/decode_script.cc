#include "tests/integration/decode_script.h"

#include <cstddef>
#include <cstdlib>
#include <filesystem>
#include <span>
#include <string_view>
#include <utility>

#include "absl/status/status.h"
#include "absl/time/time.h"

#include "common/clock.h"
#include "common/status_macros.h"
#include "engram_store/client/engram_source.h"

namespace tessera::testing {
namespace {

constexpr int64_t kBlocksPerSlot = 2;

class GatheredRows final : public engram_store::EngramSource {
 public:
  GatheredRows(std::unique_ptr<engram_store::EngramSource> rows, int num_good)
      : rows_(std::move(rows)), num_good_(num_good) {}

  std::string_view name() const override { return "gathered"; }
  std::span<const engram_store::TableInfo> tables() const override {
    return rows_->tables();
  }
  engram_store::PendingRows Issue(size_t table, std::span<const uint32_t> row_ids,
                                  std::span<std::byte> destination) override {
    return rows_->Issue(table, row_ids, destination);
  }
  absl::Status Wait(engram_store::PendingRows pending, absl::Time deadline) override {
    const absl::Status status = rows_->Wait(pending, deadline);
    return num_good_-- == 0 ? absl::UnavailableError("no replica answers") : status;
  }
  engram_store::EngramSourceStats stats() const override { return rows_->stats(); }

 private:
  const std::unique_ptr<engram_store::EngramSource> rows_;
  int num_good_;
};

}  // namespace

cli::EngramSourceFactory Gathered(cli::EngramSourceFactory rows, int num_good) {
  return [rows = std::move(rows), num_good](
             int rank) -> absl::StatusOr<std::unique_ptr<engram_store::EngramSource>> {
    TESSERA_ASSIGN_OR_RETURN(auto source, rows(rank));
    return std::make_unique<GatheredRows>(std::move(source), num_good);
  };
}

absl::StatusOr<std::unique_ptr<ServedTiny>> ServedTiny::Create(const TinyModel& tiny,
                                                               uint64_t seed) {
  std::unique_ptr<ServedTiny> model(new ServedTiny());
  std::string directory =
      (std::filesystem::temp_directory_path() / "decode_script_XXXXXX").string();
  if (mkdtemp(directory.data()) == nullptr) {
    return absl::InternalError("no folder for a tiny model");
  }
  model->directory_ = directory;
  TESSERA_RETURN_IF_ERROR(WriteTinyCheckpoint(tiny, seed, directory));
  TESSERA_ASSIGN_OR_RETURN(model->loaded_, cli::LoadModel(directory));
  TESSERA_ASSIGN_OR_RETURN(cli::EngramSourceFactory engram,
                           cli::ResidentEngram(*model->loaded_, Clock::Real()));
  model->served_ = {.model = model->loaded_.get(),
                    .engram = std::move(engram),
                    .ids = TinyPrompt(tiny, 16, seed)};
  return model;
}

ServedTiny::~ServedTiny() {
  std::error_code ignored;
  std::filesystem::remove_all(directory_, ignored);
}

cli::RankOptions DecodeOptions(const Served& served, int64_t max_slots,
                               bool decode_graphs) {
  cli::RankOptions options;
  options.backend = "cuda";
  worker::RunnerOptions& runner = options.runner;
  runner.max_slots = max_slots;
  runner.max_tokens = 32;
  runner.block_size = served.model->config.default_block_size();
  runner.max_model_len = kBlocksPerSlot * runner.block_size;
  runner.num_blocks = max_slots * kBlocksPerSlot;
  runner.num_tail_blocks = served.keeps_tail() ? runner.num_blocks : 0;
  runner.decode_graphs = decode_graphs;
  runner.decode_graph_time = absl::Hours(1);
  return options;
}

void PlanWriter::Begin(uint64_t epoch) {
  plan_ = {};
  plan_.epoch = epoch;
  plan_.step = 1;
  plan_.placement_version = 1;
}

void PlanWriter::BeginNextStep() {
  const uint64_t step = plan_.step;
  Begin(plan_.epoch);
  plan_.step = step + 1;
}

void PlanWriter::Admit(uint32_t slot, uint32_t home, uint64_t seed,
                       int32_t num_logprobs) {
  proto::SlotAdmission admission;
  admission.slot = slot;
  admission.prompt_length = static_cast<uint32_t>(Prompt(seed).size());
  admission.sampling.temperature = seed % 2 == 0 ? 0.0F : 0.9F;
  admission.sampling.seed = seed;
  admission.sampling.num_logprobs = num_logprobs;
  for (int64_t i = 0; i < kBlocksPerSlot; ++i) {
    admission.blocks.push_back(static_cast<uint32_t>(home * kBlocksPerSlot + i));
  }
  if (served_.keeps_tail()) {
    admission.tail_blocks = admission.blocks;
  }
  plan_.admissions.push_back(admission);
  plan_.work.push_back(
      {.slot = slot, .from_sample = false, .sample = true, .tokens = Prompt(seed)});
}

void PlanWriter::Decode(const std::vector<uint32_t>& slots) {
  for (const uint32_t slot : slots) {
    plan_.work.push_back({.slot = slot, .from_sample = true, .sample = true});
  }
}

std::vector<int32_t> PlanWriter::Prompt(uint64_t seed) const {
  const auto begin = served_.ids.begin() + static_cast<std::ptrdiff_t>(seed % 7);
  return {begin, begin + static_cast<std::ptrdiff_t>(1 + seed % 3)};
}

}  // namespace tessera::testing
