#include "model/tensors/model_summary.h"

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <iterator>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "fmt/format.h"
#include "fmt/ranges.h"
#include "nlohmann/json.hpp"

#include "common/status_macros.h"
#include "model/config/strict_json.h"

namespace tessera::model {
namespace {

constexpr size_t kMaxIgnored = 1000;

void AddTo(TensorTotals& totals, const ExpectedTensor& tensor) {
  totals.num_tensors += 1;
  totals.parameters += tensor.num_parameters;
  totals.bytes += tensor.num_bytes();
}

// Parameters of a main tensor that one text token reads, routed experts apart.
int64_t ReadPerToken(const ModelConfig& config, const ExpectedTensor& tensor) {
  switch (tensor.kind) {
    case TensorKind::kRoutedExpert:
      return 0;
    case TensorKind::kVision:
      return 0;
    case TensorKind::kEmbedding:
      return config.hidden_size;
    case TensorKind::kEngramTable:
      return tensor.num_parameters > 0
                 ? config.engram->num_columns() * config.engram->head_dim
                 : 0;
    default:
      return tensor.num_parameters;
  }
}

std::string LinearFormatName(const ModelConfig& config) {
  return config.fp8_linears ? fmt::format("fp8 {0}x{0}", config.weight_block) : "bf16";
}

std::string ExpertFormatName(const ModelConfig& config) {
  const DType dtype = config.moe.expert_dtype;
  return dtype == DType::kFp4    ? "mxfp4"
         : dtype == DType::kBF16 ? "bf16"
                                 : LinearFormatName(config);
}

std::string_view RowFormatName(EngramRowFormat format) {
  return format == EngramRowFormat::kFp8 ? "fp8" : "bf16";
}

// "12.34 GiB", with the unit that suits.
std::string FormatBytes(int64_t bytes) {
  constexpr std::array<std::string_view, 5> kUnits = {"B", "KiB", "MiB", "GiB", "TiB"};
  double value = static_cast<double>(bytes);
  size_t unit = 0;
  while (value >= 1024 && unit + 1 < kUnits.size()) {
    value /= 1024;
    ++unit;
  }
  return fmt::format("{:.{}f} {}", value, unit == 0 ? 0 : 2, kUnits[unit]);
}

// "31.2 M", so that models can be compared at a glance.
std::string FormatCount(int64_t count) {
  constexpr std::array<std::string_view, 5> kUnits = {"", " k", " M", " B", " T"};
  double value = static_cast<double>(count);
  size_t unit = 0;
  while (value >= 1000 && unit + 1 < kUnits.size()) {
    value /= 1000;
    ++unit;
  }
  return fmt::format("{:.{}f}{}", value, unit == 0 ? 0 : 2, kUnits[unit]);
}

using Out = std::back_insert_iterator<std::string>;

std::string FormatIndexer(const IndexerConfig& indexer) {
  return fmt::format("indexer {} heads of {}, top {}", indexer.num_heads,
                     indexer.head_dim, indexer.topk);
}

void FormatMla(Out out, const ModelConfig& config) {
  const MlaConfig& mla = config.mla;
  fmt::format_to(out, "attention   MLA, {} heads of {}+{}, latent {}{}\n", mla.num_heads,
                 mla.qk_nope_head_dim, mla.qk_rope_head_dim, mla.kv_lora_rank,
                 config.attention == AttentionKind::kMlaDsa
                     ? "; " + FormatIndexer(config.indexer)
                     : "");
}

// "2 of the window alone, 21 of ratio 4, 20 of ratio 128".
std::string FormatRatios(const ModelConfig& config) {
  std::map<int64_t, int64_t> counts;
  for (int64_t layer = 0; layer < config.num_layers; ++layer) {
    ++counts[config.compressed.ratios[static_cast<size_t>(layer)]];
  }
  std::vector<std::string> parts;
  for (const auto& [ratio, count] : counts) {
    parts.push_back(ratio == 0 ? fmt::format("{} of the window alone", count)
                               : fmt::format("{} of ratio {}", count, ratio));
  }
  return fmt::format("{}", fmt::join(parts, ", "));
}

void FormatCompressed(Out out, const ModelConfig& config) {
  const CompressedAttentionConfig& attention = config.compressed;
  fmt::format_to(out,
                 "attention   window of {} and entries, {} heads of {}, {} output groups "
                 "of rank {}; {}\n",
                 attention.window, attention.num_heads, attention.head_dim,
                 attention.num_output_groups, attention.output_rank,
                 FormatIndexer(config.indexer));
  fmt::format_to(out, "layers      {}\n", FormatRatios(config));
}

void FormatRope(Out out, std::string_view name, const RopeConfig& rope) {
  fmt::format_to(out, "{:<11} theta {}{}\n", name, rope.theta,
                 rope.yarn.has_value()
                     ? fmt::format(", yarn x{} from {}", rope.yarn->factor,
                                   rope.yarn->original_max_positions)
                     : "");
}

std::string FormatResidual(const ModelConfig& config) {
  if (config.residual == ResidualKind::kPlain) {
    return "plain";
  }
  return fmt::format("mHC{}, {} streams, {} Sinkhorn iterations",
                     config.residual == ResidualKind::kHyperHandOff ? " in one pass" : "",
                     config.hyper.num_streams, config.hyper.sinkhorn_iters);
}

std::string FormatDraft(const ModelConfig& config) {
  switch (config.draft) {
    case DraftKind::kNone:
      return "none";
    case DraftKind::kDspark:
      return fmt::format("DSpark, {} layers, {} tokens at once", config.num_draft_layers,
                         config.dspark->block_size);
    default:
      return fmt::format("{} MTP layer", config.num_draft_layers);
  }
}

void FormatRouter(Out out, const ModelConfig& config) {
  const MoeConfig& moe = config.moe;
  fmt::format_to(out, "router      {}, top {} of {}{}, {} shared; experts {} wide, {}\n",
                 config.router == RouterKind::kSigmoid ? "sigmoid" : "sqrt-softplus",
                 moe.experts_per_token, moe.num_experts,
                 moe.num_groups > 1
                     ? fmt::format(" in {} of {} groups", moe.top_groups, moe.num_groups)
                     : "",
                 moe.num_shared_experts, moe.expert_width, ExpertFormatName(config));
  if (config.num_hash_layers > 0) {
    fmt::format_to(out, "            the first {} layers by token id\n",
                   config.num_hash_layers);
  }
}

void FormatChoices(Out out, const ModelConfig& config) {
  fmt::format_to(out, "family      {} ({})\n", config.family, config.model_type);
  fmt::format_to(
      out, "shape       {} layers ({} dense), hidden {}, vocabulary {}, {} positions\n",
      config.num_layers, config.num_dense_layers, config.hidden_size, config.vocab_size,
      config.max_positions);
  if (config.has_window()) {
    FormatCompressed(out, config);
  } else {
    FormatMla(out, config);
  }
  FormatRope(out, "rope", config.rope);
  if (config.has_window()) {
    FormatRope(out, "", config.compressed_rope);
  }
  fmt::format_to(out, "residual    {}\n", FormatResidual(config));
  FormatRouter(out, config);
  fmt::format_to(out, "linears     {}\n", LinearFormatName(config));
  fmt::format_to(out, "draft       {}\n", FormatDraft(config));
  if (config.vision.has_value()) {
    fmt::format_to(out, "vision      {} layers of {}, which are not run: text alone\n",
                   config.vision->num_layers, config.vision->hidden_size);
  }
}

void FormatEngram(Out out, const ModelSummary& summary) {
  if (!summary.config.engram.has_value()) {
    fmt::format_to(out, "engram      none\n");
    return;
  }
  const EngramConfig& engram = *summary.config.engram;
  fmt::format_to(
      out, "engram      contract {}, orders 2..{}, {} heads, rows of {} ({})\n",
      engram.contract == EngramContract::kDemo ? "demo" : "v41", engram.max_ngram,
      engram.num_heads, engram.head_dim, RowFormatName(summary.engram_rows));
  for (const EngramTableSummary& table : summary.engram_tables) {
    fmt::format_to(out, "  layer {:<4} {} rows x {} B = {}\n", table.layer, table.rows,
                   table.row_bytes, FormatBytes(table.bytes()));
  }
}

void FormatRow(Out out, std::string_view name, const TensorTotals& totals) {
  if (totals.num_tensors > 0) {
    fmt::format_to(out, "  {:<15} {:>8} {:>18} {:>12}\n", name, totals.num_tensors,
                   totals.parameters, FormatBytes(totals.bytes));
  }
}

void FormatTables(Out out, const ModelSummary& summary) {
  fmt::format_to(out, "\n  {:<15} {:>8} {:>18} {:>12}\n", "kind", "tensors", "parameters",
                 "bytes");
  for (size_t i = 0; i < summary.by_kind.size(); ++i) {
    FormatRow(out, TensorKindName(static_cast<TensorKind>(i)), summary.by_kind[i]);
  }
  fmt::format_to(out, "\n  {:<15} {:>8} {:>18} {:>12}\n", "format", "tensors",
                 "parameters", "bytes");
  for (size_t i = 0; i < summary.by_format.size(); ++i) {
    FormatRow(out, StorageFormatName(static_cast<StorageFormat>(i)),
              summary.by_format[i]);
  }
}

// "433 BF16, 417 F32".
std::string FormatDTypes(const ModelSummary& summary) {
  std::vector<std::string> parts;
  for (const auto& [dtype, count] : summary.tensors_by_dtype) {
    parts.push_back(fmt::format("{} {}", count, DTypeName(dtype)));
  }
  return fmt::format("{}", fmt::join(parts, ", "));
}

nlohmann::ordered_json ToJson(const TensorTotals& totals) {
  return {{"tensors", totals.num_tensors},
          {"parameters", totals.parameters},
          {"bytes", totals.bytes}};
}

nlohmann::ordered_json ChoicesToJson(const ModelConfig& config) {
  constexpr std::array<std::string_view, 3> kAttentions = {"mla", "mla_dsa",
                                                           "compressed"};
  constexpr std::array<std::string_view, 3> kResiduals = {"plain", "hyper_connections",
                                                          "hyper_hand_off"};
  return {
      {"attention", kAttentions[static_cast<size_t>(config.attention)]},
      {"residual", kResiduals[static_cast<size_t>(config.residual)]},
      {"router", config.router == RouterKind::kSigmoid ? "sigmoid" : "sqrt_softplus"},
      {"draft", config.draft == DraftKind::kNone     ? "none"
                : config.draft == DraftKind::kDspark ? "dspark"
                                                     : "mtp"},
      {"engram", config.engram.has_value()
                     ? (config.engram->contract == EngramContract::kDemo ? "demo" : "v41")
                     : "none"}};
}

bool IsReadFile(std::string_view name) {
  constexpr std::array<std::string_view, 6> kRead = {
      "config.json",           "generation_config.json", "tokenizer.json",
      "tokenizer_config.json", "model.safetensors",      "model.safetensors.index.json"};
  return std::find(kRead.begin(), kRead.end(), name) != kRead.end();
}

// Members by which other programs run code or templates that come with a checkpoint.
void AppendIgnoredMembers(const std::string& directory,
                          std::vector<std::string>& ignored) {
  for (const char* file : {"config.json", "tokenizer_config.json"}) {
    const absl::StatusOr<std::string> text =
        ReadSmallFile(fmt::format("{}/{}", directory, file), StrictJsonLimits{}.bytes);
    const absl::StatusOr<nlohmann::json> json =
        text.ok() ? ParseStrictJson(*text)
                  : absl::StatusOr<nlohmann::json>(text.status());
    for (const char* member : {"auto_map", "chat_template"}) {
      if (json.ok() && json->is_object() && json->contains(member)) {
        ignored.push_back(fmt::format("{}: {}", file, member));
      }
    }
  }
}

// Beside a checkpoint whose token map is no tensor of its own.
bool IsTokenMap(const ModelConfig& config, std::string_view name) {
  return config.engram.has_value() && config.names == TensorNames::kNative &&
         name == "compressed_ids.safetensors";
}

std::vector<std::string> FindIgnored(const ModelConfig& config,
                                     const std::string& directory,
                                     const std::vector<std::string>& shards) {
  std::vector<std::string> ignored;
  std::error_code error;
  for (std::filesystem::directory_iterator entry(directory, error), end;
       !error && entry != end && ignored.size() < kMaxIgnored; entry.increment(error)) {
    std::string name = entry->path().filename().string();
    if (!IsReadFile(name) && !IsTokenMap(config, name) &&
        std::find(shards.begin(), shards.end(), name) == shards.end()) {
      ignored.push_back(std::move(name));
    }
  }
  AppendIgnoredMembers(directory, ignored);
  std::sort(ignored.begin(), ignored.end());
  return ignored;
}

}  // namespace

ModelSummary SummarizeModel(const ModelConfig& config, EngramRowFormat engram_rows) {
  ModelSummary summary;
  summary.config = config;
  summary.engram_rows = engram_rows;
  int64_t routed_parameters = 0;
  for (const ExpectedTensor& tensor : TensorInventory(config, engram_rows)) {
    AddTo(summary.by_kind[static_cast<size_t>(tensor.kind)], tensor);
    AddTo(summary.by_format[static_cast<size_t>(tensor.format)], tensor);
    ++summary.tensors_by_dtype[tensor.dtype];
    if (tensor.layer >= config.num_layers) {
      AddTo(summary.draft, tensor);
      continue;
    }
    AddTo(summary.main, tensor);
    summary.active_parameters += ReadPerToken(config, tensor);
    if (tensor.kind == TensorKind::kRoutedExpert) {
      routed_parameters += tensor.num_parameters;
    }
    if (tensor.kind == TensorKind::kEngramTable) {
      if (tensor.num_parameters > 0) {
        summary.engram_tables.push_back({.layer = tensor.layer, .rows = tensor.shape[0]});
      }
      summary.engram_tables.back().row_bytes += tensor.num_bytes() / tensor.shape[0];
    }
  }
  // All experts are alike, so the division is exact.
  summary.active_parameters +=
      routed_parameters / config.moe.num_experts * config.moe.experts_per_token;
  return summary;
}

absl::StatusOr<ModelSummary> SummarizeDirectory(const std::string& directory,
                                                std::span<const std::string> overrides) {
  TESSERA_ASSIGN_OR_RETURN(const ModelConfig config,
                           LoadModelConfig(directory, overrides));
  absl::StatusOr<std::unique_ptr<Checkpoint>> checkpoint =
      overrides.empty() ? Checkpoint::Open(directory) : absl::NotFoundError("not wanted");
  if (checkpoint.status().code() == absl::StatusCode::kNotFound) {
    ModelSummary summary = SummarizeModel(config, DefaultEngramRowFormat(config));
    summary.ignored = FindIgnored(config, directory, {});
    return summary;
  }
  TESSERA_RETURN_IF_ERROR(checkpoint.status());
  TESSERA_RETURN_IF_ERROR(ValidateCheckpoint(config, **checkpoint));
  ModelSummary summary =
      SummarizeModel(config, FindEngramRowFormat(config, **checkpoint));
  summary.digest = (*checkpoint)->digest();
  summary.ignored = FindIgnored(config, directory, (*checkpoint)->files());
  return summary;
}

std::string FormatSummary(const ModelSummary& summary) {
  std::string text;
  const Out out = std::back_inserter(text);
  FormatChoices(out, summary.config);
  FormatEngram(out, summary);
  const auto line = [&out](std::string_view name, const TensorTotals& totals) {
    fmt::format_to(out, "{:<11} {} parameters ({}), {} tensors, {}\n", name,
                   FormatCount(totals.parameters), totals.parameters, totals.num_tensors,
                   FormatBytes(totals.bytes));
  };
  line("total", summary.main);
  const double share = 100.0 * static_cast<double>(summary.active_parameters) /
                       static_cast<double>(summary.main.parameters);
  fmt::format_to(out, "active      {} parameters ({}), {:.2f} % of the total\n",
                 FormatCount(summary.active_parameters), summary.active_parameters,
                 share);
  if (summary.draft.num_tensors > 0) {
    line("draft, more", summary.draft);
  }
  fmt::format_to(out, "tensors     {}: {}\n",
                 summary.main.num_tensors + summary.draft.num_tensors,
                 FormatDTypes(summary));
  fmt::format_to(out, "weights     {}\n",
                 summary.digest.empty() ? "none here: sizes are those of the config"
                                        : "checked, digest sha256:" + summary.digest);
  if (!summary.ignored.empty()) {
    fmt::format_to(out, "ignored     {}\n", fmt::join(summary.ignored, ", "));
  }
  FormatTables(out, summary);
  return text;
}

std::string FormatSummaryJson(const ModelSummary& summary) {
  nlohmann::ordered_json json = {
      {"family", summary.config.family},
      {"model_type", summary.config.model_type},
      {"choices", ChoicesToJson(summary.config)},
      {"total_parameters", summary.main.parameters},
      {"active_parameters", summary.active_parameters},
      {"draft_parameters", summary.draft.parameters},
      {"tensors", summary.main.num_tensors + summary.draft.num_tensors},
      {"bytes", summary.main.bytes + summary.draft.bytes},
      {"draft_bytes", summary.draft.bytes}};
  for (size_t i = 0; i < summary.by_kind.size(); ++i) {
    if (summary.by_kind[i].num_tensors > 0) {
      json["kinds"][std::string(TensorKindName(static_cast<TensorKind>(i)))] =
          ToJson(summary.by_kind[i]);
    }
  }
  for (size_t i = 0; i < summary.by_format.size(); ++i) {
    if (summary.by_format[i].num_tensors > 0) {
      json["formats"][std::string(StorageFormatName(static_cast<StorageFormat>(i)))] =
          ToJson(summary.by_format[i]);
    }
  }
  for (const auto& [dtype, count] : summary.tensors_by_dtype) {
    json["dtypes"][std::string(DTypeName(dtype))] = count;
  }
  json["engram_tables"] = nlohmann::ordered_json::array();
  for (const EngramTableSummary& table : summary.engram_tables) {
    json["engram_tables"].push_back({{"layer", table.layer},
                                     {"rows", table.rows},
                                     {"row_bytes", table.row_bytes},
                                     {"bytes", table.bytes()}});
  }
  json["digest"] = summary.digest.empty() ? nlohmann::ordered_json(nullptr)
                                          : nlohmann::ordered_json(summary.digest);
  json["ignored"] = summary.ignored;
  // File names need not be UTF-8; a dump must not fail for one.
  return json.dump(2, ' ', false, nlohmann::ordered_json::error_handler_t::replace) +
         "\n";
}

}  // namespace tessera::model
