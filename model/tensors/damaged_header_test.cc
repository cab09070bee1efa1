// What a damaged file must not do: load with another meaning. Bits of every byte of the
// headers of small models, some of every golden's, and files cut inside every kind of
// tensor. TESSERA_LONG_TESTS=1 takes every byte of the goldens.
#include <algorithm>
#include <cctype>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <map>
#include <span>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"

#include "model/config/model_config.h"
#include "model/tensors/safetensors_header.h"
#include "model/tensors/tensor_inventory.h"
#include "tests/testing/config_documents.h"
#include "tests/testing/listed_checkpoint.h"

namespace tessera::model {
namespace {

using tessera::testing::ListedCheckpoint;
using tessera::testing::ReadDocument;
using tessera::testing::ReadText;
using ::testing::HasSubstr;

constexpr size_t kPrefixBytes = 8;

std::span<const std::byte> Bytes(const std::string& file) {
  return std::as_bytes(std::span(file));
}

// A file of these tensors: its header as it is published, its data all zeros.
std::string FileOf(const std::vector<ExpectedTensor>& tensors) {
  nlohmann::ordered_json header = {{"__metadata__", {{"format", "pt"}}}};
  uint64_t end = 0;
  for (const ExpectedTensor& tensor : tensors) {
    const auto bytes = static_cast<uint64_t>(tensor.num_bytes());
    header[tensor.name] = {{"dtype", DTypeName(tensor.dtype)},
                           {"shape", tensor.shape},
                           {"data_offsets", {end, end + bytes}}};
    end += bytes;
  }
  const std::string text = header.dump();
  std::string file(kPrefixBytes, '\0');
  for (size_t i = 0; i < kPrefixBytes; ++i) {
    file[i] = static_cast<char>(text.size() >> (8 * i));
  }
  return file + text + std::string(end, '\0');
}

bool AreSame(const std::vector<SafetensorsEntry>& a,
             const std::vector<SafetensorsEntry>& b) {
  return std::equal(a.begin(), a.end(), b.begin(), b.end(),
                    [](const SafetensorsEntry& x, const SafetensorsEntry& y) {
                      return x.name == y.name && x.dtype == y.dtype &&
                             x.shape == y.shape && x.begin == y.begin && x.end == y.end;
                    });
}

absl::Status Validate(const ModelConfig& config,
                      const std::vector<SafetensorsEntry>& entries) {
  std::vector<ExpectedTensor> tensors;
  for (const SafetensorsEntry& entry : entries) {
    tensors.push_back({.name = entry.name, .dtype = entry.dtype, .shape = entry.shape});
  }
  return ValidateCheckpoint(config, ListedCheckpoint(tensors));
}

// Flips one bit of the header and expects an error, or the very same tensors.
void FlipAndCheck(const ModelConfig& config, std::string& file, size_t at, int bit,
                  const std::vector<SafetensorsEntry>& whole) {
  const char before = file[at];
  file[at] = static_cast<char>(before ^ (1 << bit));
  const auto layout = ParseSafetensors(Bytes(file));
  if (layout.ok()) {
    EXPECT_TRUE(AreSame(layout->entries, whole) ||
                !Validate(config, layout->entries).ok())
        << "byte " << at << " bit " << bit;
  } else {
    EXPECT_EQ(layout.status().code(), absl::StatusCode::kDataLoss) << layout.status();
  }
  file[at] = before;
}

struct CutModel {
  const char* folder;
  std::map<std::string, nlohmann::json> fields;
};

// The goldens' configs, cut to one layer of each kind and as few experts as there may be.
std::vector<CutModel> CutModels() {
  const std::map<std::string, nlohmann::json> mla = {
      {"num_hidden_layers", 2}, {"first_k_dense_replace", 1},
      {"n_routed_experts", 1},  {"num_experts_per_tok", 1},
      {"n_group", 1},           {"topk_group", 1}};
  const std::map<std::string, nlohmann::json> window = {{"num_hidden_layers", 2},
                                                        {"compress_ratios", {0, 4}},
                                                        {"num_nextn_predict_layers", 0},
                                                        {"n_routed_experts", 1},
                                                        {"num_experts_per_tok", 1}};
  return {{"v3", mla}, {"v3_bf16", mla}, {"v32", mla}, {"v4", window}};
}

TEST(DamagedHeader, NoByteOfASmallModelLoadsWithAnotherMeaning) {
  for (const CutModel& cut : CutModels()) {
    SCOPED_TRACE(cut.folder);
    nlohmann::json document =
        ReadDocument(std::string("tests/data/") + cut.folder + "/config.json");
    for (const auto& [field, value] : cut.fields) {
      document[field] = value;
    }
    const ModelConfig config = ParseModelConfig(document.dump()).value();
    std::string file = FileOf(TensorInventory(config, EngramRowFormat::kBf16));
    const auto whole = ParseSafetensors(Bytes(file));
    ASSERT_TRUE(whole.ok()) << whole.status();
    ASSERT_TRUE(Validate(config, whole->entries).ok())
        << Validate(config, whole->entries);
    const std::vector<SafetensorsEntry> entries = whole->entries;
    const size_t end = kPrefixBytes + whole->header.size();
    for (size_t at = 0; at < end; ++at) {
      for (const size_t bit : {at, at + 3, at + 5}) {
        FlipAndCheck(config, file, at, static_cast<int>(bit % 8), entries);
      }
    }
  }
}

// A bit of every byte of the published layouts, or of bytes a prime number apart: in each
// tensor's entry at least one.
TEST(DamagedHeader, BitsOfEveryGoldenLoadWithNoOtherMeaning) {
  const size_t stride = std::getenv("TESSERA_LONG_TESTS") != nullptr ? 1 : 61;
  for (const char* name : {"v3", "v3_bf16", "v32", "v4", "v4_0731", "v41"}) {
    const std::string folder = std::string("tests/data/") + name;
    const ModelConfig config = LoadModelConfig(folder).value();
    std::string file = ReadText(folder + "/model.safetensors");
    const auto whole = ParseSafetensors(Bytes(file));
    ASSERT_TRUE(whole.ok()) << whole.status();
    const std::vector<SafetensorsEntry> entries = whole->entries;
    const size_t end = kPrefixBytes + whole->header.size();
    for (size_t at = 0; at < end; at += stride) {
      FlipAndCheck(config, file, at, static_cast<int>(at % 8), entries);
    }
  }
}

// "layers.3.ffn.experts.5.w1.scale" and "layers.1.ffn.experts.0.w1.scale" are one kind.
std::string KindOf(const std::string& name) {
  std::string kind;
  for (const char c : name) {
    if (std::isdigit(static_cast<unsigned char>(c)) == 0) {
      kind += c;
    }
  }
  return kind;
}

TEST(DamagedHeader, FilesCutInsideATensorNameIt) {
  for (const char* name : {"v3", "v3_bf16", "v32", "v4", "v4_0731", "v41"}) {
    const std::string folder = std::string("tests/data/") + name;
    const std::string file = ReadText(folder + "/model.safetensors");
    const auto whole = ParseSafetensors(Bytes(file));
    ASSERT_TRUE(whole.ok()) << whole.status();
    const size_t data = kPrefixBytes + whole->header.size();
    std::map<std::string, const SafetensorsEntry*> kinds;
    for (const SafetensorsEntry& entry : whole->entries) {
      kinds.emplace(KindOf(entry.name), &entry);
    }
    EXPECT_GT(kinds.size(), 20u) << name;
    for (const auto& [kind, entry] : kinds) {
      const absl::Status status =
          ParseSafetensors(Bytes(file).first(data + entry->end - 1)).status();
      EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss) << entry->name;
      EXPECT_THAT(std::string(status.message()),
                  HasSubstr("tensor " + entry->name + ": ends at byte"));
    }
  }
}

}  // namespace
}  // namespace tessera::model
