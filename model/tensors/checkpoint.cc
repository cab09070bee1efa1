#include "model/tensors/checkpoint.h"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <system_error>
#include <unordered_map>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "fmt/format.h"
#include "nlohmann/json.hpp"
#include <openssl/evp.h>

#include "common/check.h"
#include "common/status.h"
#include "common/status_macros.h"
#include "model/config/strict_json.h"
#include "model/tensors/mapped_file.h"
#include "model/tensors/safetensors_header.h"

namespace tessera::model {
namespace {

constexpr std::string_view kSingleName = "model.safetensors";
constexpr std::string_view kIndexName = "model.safetensors.index.json";
constexpr size_t kMaxIndexBytes = 100'000'000;
constexpr size_t kMaxConfigBytes = size_t{4} << 20;
constexpr size_t kMaxShards = 10'000;

// SHA-256 over parts, each with its length in front so that no two lists of parts look
// alike.
class Digest {
 public:
  Digest() : context_(EVP_MD_CTX_new(), &EVP_MD_CTX_free) {
    TESSERA_CHECK(context_ != nullptr);
    TESSERA_CHECK(EVP_DigestInit_ex(context_.get(), EVP_sha256(), nullptr) == 1);
  }

  void Add(std::string_view part) {
    const uint64_t size = part.size();
    Update(&size, sizeof(size));
    Update(part.data(), part.size());
  }

  std::string Hex() {
    unsigned char bytes[EVP_MAX_MD_SIZE];
    unsigned length = 0;
    TESSERA_CHECK(EVP_DigestFinal_ex(context_.get(), bytes, &length) == 1);
    std::string text;
    for (const unsigned char byte : std::span(bytes, length)) {
      text += fmt::format("{:02x}", byte);
    }
    return text;
  }

 private:
  void Update(const void* bytes, size_t size) {
    TESSERA_CHECK(EVP_DigestUpdate(context_.get(), bytes, size) == 1);
  }

  std::unique_ptr<EVP_MD_CTX, decltype(&EVP_MD_CTX_free)> context_;
};

struct Shard {
  std::string name;  // file name, without folder
  std::unique_ptr<MappedFile> file;
  SafetensorsLayout layout;
};

// Which shard each tensor should be in; file names in order.
using WeightMap = std::map<std::string, std::vector<std::string>>;

absl::StatusOr<Shard> OpenShard(const std::string& path) {
  Shard shard;
  shard.name = std::filesystem::path(path).filename().string();
  TESSERA_ASSIGN_OR_RETURN(shard.file, MappedFile::Open(path));
  absl::StatusOr<SafetensorsLayout> layout = ParseSafetensors(shard.file->bytes());
  if (!layout.ok()) {
    return WithContext(layout.status(), path);
  }
  shard.layout = *std::move(layout);
  return shard;
}

// A shard lies beside its index: a name is a file name and nothing that leads elsewhere.
bool IsShardName(std::string_view name) {
  constexpr std::string_view kSuffix = ".safetensors";
  return name.size() > kSuffix.size() && name.size() <= 255 && name.ends_with(kSuffix) &&
         !name.starts_with('.') &&
         name.find_first_of(std::string_view("/\\\0", 3)) == std::string_view::npos;
}

absl::StatusOr<WeightMap> ReadIndex(const std::string& path) {
  TESSERA_ASSIGN_OR_RETURN(const std::string text, ReadSmallFile(path, kMaxIndexBytes));
  const absl::StatusOr<nlohmann::json> index =
      ParseStrictJson(text, {.bytes = kMaxIndexBytes, .depth = 8});
  if (!index.ok()) {
    return DataLossF("{}: {}", path,
                     fmt::string_view(index.status().message().data(),
                                      index.status().message().size()));
  }
  if (!index->is_object() || !index->contains("weight_map") ||
      !(*index)["weight_map"].is_object()) {
    return DataLossF("{}: no object \"weight_map\"", path);
  }
  WeightMap map;
  for (const auto& [tensor, file] : (*index)["weight_map"].items()) {
    if (!file.is_string() || !IsShardName(file.get_ref<const std::string&>())) {
      return DataLossF(
          "{}: tensor {}: {} is not the name of a .safetensors file beside it", path,
          tensor, file.dump(-1, ' ', true).substr(0, 100));
    }
    map[file.get<std::string>()].push_back(tensor);
  }
  if (map.empty() || map.size() > kMaxShards) {
    return DataLossF("{}: {} shards, expected 1 to {}", path, map.size(), kMaxShards);
  }
  return map;
}

// The index and the shard must name the same tensors.
absl::Status CheckShardAgainstIndex(const Shard& shard,
                                    std::vector<std::string> indexed) {
  std::vector<std::string_view> stored;
  stored.reserve(shard.layout.entries.size());
  for (const SafetensorsEntry& entry : shard.layout.entries) {
    stored.push_back(entry.name);
  }
  std::sort(stored.begin(), stored.end());
  std::sort(indexed.begin(), indexed.end());
  const auto [in_index, in_shard] =
      std::mismatch(indexed.begin(), indexed.end(), stored.begin(), stored.end());
  if (in_index == indexed.end() && in_shard == stored.end()) {
    return absl::OkStatus();
  }
  if (in_shard == stored.end() || (in_index != indexed.end() && *in_index < *in_shard)) {
    return DataLossF("tensor {}: the index puts it in {}, which does not have it",
                     *in_index, shard.name);
  }
  return DataLossF("tensor {}: {} has it, but the index does not put it there", *in_shard,
                   shard.name);
}

// The one Checkpoint: tensors of any number of mapped shards, found by name.
class MappedCheckpoint final : public Checkpoint {
 public:
  MappedCheckpoint(std::vector<Shard> shards, std::string digest)
      : shards_(std::move(shards)), digest_(std::move(digest)) {}

  // Fills the tables. kDataLoss for a tensor that two shards have.
  absl::Status Index();

  absl::StatusOr<TensorRef> Find(std::string_view name) const override;
  const std::vector<std::string>& names() const override { return names_; }
  std::vector<std::string> files() const override;
  uint64_t total_bytes() const override { return total_bytes_; }
  const std::string& digest() const override { return digest_; }

 private:
  struct Place {
    const Shard* shard = nullptr;
    const SafetensorsEntry* entry = nullptr;
  };

  const std::vector<Shard> shards_;
  const std::string digest_;
  std::unordered_map<std::string_view, Place> places_;  // keys: the entries' names
  std::vector<std::string> names_;
  uint64_t total_bytes_ = 0;
};

absl::Status MappedCheckpoint::Index() {
  for (const Shard& shard : shards_) {
    for (const SafetensorsEntry& entry : shard.layout.entries) {
      const auto [place, is_new] = places_.try_emplace(entry.name, Place{&shard, &entry});
      if (!is_new) {
        return DataLossF("tensor {} is in {} and in {}", entry.name,
                         place->second.shard->name, shard.name);
      }
      names_.push_back(entry.name);
      total_bytes_ += entry.end - entry.begin;
    }
  }
  std::sort(names_.begin(), names_.end());
  return absl::OkStatus();
}

std::vector<std::string> MappedCheckpoint::files() const {
  std::vector<std::string> files;
  for (const Shard& shard : shards_) {
    files.push_back(shard.name);
  }
  return files;
}

absl::StatusOr<TensorRef> MappedCheckpoint::Find(std::string_view name) const {
  const auto found = places_.find(name);
  if (found == places_.end()) {
    return StatusF(absl::StatusCode::kNotFound, "no tensor {}", name);
  }
  const SafetensorsEntry& entry = *found->second.entry;
  return TensorRef{.name = entry.name,
                   .dtype = entry.dtype,
                   .shape = entry.shape,
                   .data = found->second.shard->layout.data.subspan(
                       entry.begin, entry.end - entry.begin)};
}

absl::StatusOr<std::unique_ptr<Checkpoint>> Assemble(
    std::vector<Shard> shards, const std::optional<std::string>& config,
    std::span<const std::string> overrides) {
  Digest digest;
  for (const Shard& shard : shards) {
    digest.Add(shard.name);
    digest.Add(shard.layout.header);
  }
  if (config.has_value()) {
    digest.Add("config.json");
    digest.Add(*config);
  }
  for (const std::string& override : overrides) {
    digest.Add("override");
    digest.Add(override);
  }
  auto checkpoint = std::make_unique<MappedCheckpoint>(std::move(shards), digest.Hex());
  TESSERA_RETURN_IF_ERROR(checkpoint->Index());
  return checkpoint;
}

absl::StatusOr<std::vector<Shard>> OpenIndexedShards(const std::filesystem::path& folder,
                                                     const std::string& index_path) {
  TESSERA_ASSIGN_OR_RETURN(WeightMap map, ReadIndex(index_path));
  std::vector<Shard> shards;
  for (auto& [name, tensors] : map) {
    absl::StatusOr<Shard> shard = OpenShard((folder / name).string());
    if (shard.status().code() == absl::StatusCode::kNotFound) {
      return DataLossF("{}: the index names {}, which does not exist", index_path, name);
    }
    TESSERA_RETURN_IF_ERROR(shard.status());
    TESSERA_RETURN_IF_ERROR(
        WithContext(CheckShardAgainstIndex(*shard, std::move(tensors)), index_path));
    shards.push_back(*std::move(shard));
  }
  return shards;
}

}  // namespace

int64_t TensorRef::num_elements() const {
  int64_t count = 1;
  for (const int64_t dimension : shape) {
    count *=
        dimension;  // Cannot overflow: the bytes were counted when the file was opened.
  }
  return count;
}

absl::StatusOr<TensorRef> Checkpoint::Require(std::string_view name, DType dtype,
                                              std::span<const int64_t> shape) const {
  TESSERA_ASSIGN_OR_RETURN(TensorRef tensor, Find(name));
  if (tensor.dtype != dtype || !std::ranges::equal(tensor.shape, shape)) {
    return DataLossF("tensor {}: found {} {}, expected {} {}", name,
                     DTypeName(tensor.dtype), FormatShape(tensor.shape), DTypeName(dtype),
                     FormatShape(shape));
  }
  return tensor;
}

absl::StatusOr<std::unique_ptr<Checkpoint>> Checkpoint::Open(
    const std::string& directory, std::span<const std::string> overrides) {
  const std::filesystem::path folder(directory);
  const std::string index_path = (folder / kIndexName).string();
  const std::string single_path = (folder / kSingleName).string();
  std::error_code ignored;  // A file that cannot be asked about counts as absent.
  const bool has_index = std::filesystem::exists(index_path, ignored);
  const bool has_single = std::filesystem::exists(single_path, ignored);
  if (has_index && has_single) {
    return InvalidArgumentF("{} has both {} and {}, expected one of them", directory,
                            kSingleName, kIndexName);
  }
  if (!has_index && !has_single) {
    return StatusF(absl::StatusCode::kNotFound, "{} has neither {} nor {}", directory,
                   kSingleName, kIndexName);
  }
  std::vector<Shard> shards;
  if (has_index) {
    TESSERA_ASSIGN_OR_RETURN(shards, OpenIndexedShards(folder, index_path));
  } else {
    TESSERA_ASSIGN_OR_RETURN(Shard shard, OpenShard(single_path));
    shards.push_back(std::move(shard));
  }
  std::optional<std::string> config;
  absl::StatusOr<std::string> text =
      ReadSmallFile((folder / "config.json").string(), kMaxConfigBytes);
  if (text.ok()) {
    config = *std::move(text);
  } else if (text.status().code() != absl::StatusCode::kNotFound) {
    return text.status();
  }
  return Assemble(std::move(shards), config, overrides);
}

absl::StatusOr<std::unique_ptr<Checkpoint>> Checkpoint::OpenFile(
    const std::string& path) {
  TESSERA_ASSIGN_OR_RETURN(Shard shard, OpenShard(path));
  std::vector<Shard> shards;
  shards.push_back(std::move(shard));
  return Assemble(std::move(shards), std::nullopt, {});
}

}  // namespace tessera::model
