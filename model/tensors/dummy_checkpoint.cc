#include "model/tensors/dummy_checkpoint.h"

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
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
#include <sys/mman.h>

#include "common/status.h"
#include "common/status_macros.h"
#include "model/config/model_config.h"
#include "model/tensors/dummy_values.h"
#include "model/tensors/tensor_inventory.h"

namespace tessera::model {
namespace {

constexpr uint64_t kAlignment = 64;

// Address space whose pages come when they are written.
class Reservation {
 public:
  static absl::StatusOr<Reservation> Make(uint64_t size) {
    void* address = ::mmap(nullptr, size, PROT_READ | PROT_WRITE,
                           MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (address == MAP_FAILED) {
      return StatusF(absl::StatusCode::kResourceExhausted,
                     "no address space for {} bytes of dummy weights: {}", size,
                     std::generic_category().message(errno));
    }
    return Reservation({static_cast<std::byte*>(address), size});
  }
  ~Reservation() {
    if (!bytes_.empty()) {
      ::munmap(bytes_.data(), bytes_.size());
    }
  }
  Reservation(Reservation&& other) noexcept : bytes_(std::exchange(other.bytes_, {})) {}
  Reservation(const Reservation&) = delete;
  Reservation& operator=(const Reservation&) = delete;

  std::span<std::byte> bytes() const { return bytes_; }

 private:
  explicit Reservation(std::span<std::byte> bytes) : bytes_(bytes) {}

  std::span<std::byte> bytes_;
};

// Two independent FNV-1a sums, as 64 hexadecimal digits with their length.
std::string DigestOf(const std::vector<ExpectedTensor>& tensors, uint64_t seed,
                     std::string_view identity) {
  uint64_t first = 0xCBF29CE484222325 ^ seed;
  uint64_t second = 0x84222325CBF29CE4 + seed;
  uint64_t length = 0;
  const auto add = [&](std::string_view text) {
    for (const char c : text) {
      first = (first ^ static_cast<unsigned char>(c)) * 0x100000001B3;
      second = (second + static_cast<unsigned char>(c)) * 0x9E3779B97F4A7C15;
      ++length;
    }
  };
  add(identity);
  for (const ExpectedTensor& tensor : tensors) {
    add(fmt::format("{}:{}:{};", tensor.name, DTypeName(tensor.dtype),
                    tensor.num_bytes()));
  }
  return fmt::format("{:016x}{:016x}{:016x}{:016x}", first, second, length, seed);
}

class DummyCheckpoint final : public Checkpoint {
 public:
  DummyCheckpoint(const ModelConfig& config, uint64_t seed, std::string digest,
                  std::vector<ExpectedTensor> tensors, std::vector<uint64_t> offsets,
                  Reservation memory)
      : config_(config),
        seed_(seed),
        digest_(std::move(digest)),
        tensors_(std::move(tensors)),
        offsets_(std::move(offsets)),
        memory_(std::move(memory)),
        made_(std::make_unique<std::once_flag[]>(tensors_.size())) {
    for (size_t i = 0; i < tensors_.size(); ++i) {
      places_.emplace(tensors_[i].name, i);
      names_.push_back(tensors_[i].name);
      total_bytes_ += static_cast<uint64_t>(tensors_[i].num_bytes());
    }
    std::sort(names_.begin(), names_.end());
  }

  absl::StatusOr<TensorRef> Find(std::string_view name) const override {
    const auto place = places_.find(name);
    if (place == places_.end()) {
      return StatusF(absl::StatusCode::kNotFound, "no tensor {}", name);
    }
    const ExpectedTensor& tensor = tensors_[place->second];
    const std::span<std::byte> bytes = memory_.bytes().subspan(
        offsets_[place->second], static_cast<size_t>(tensor.num_bytes()));
    std::call_once(made_[place->second],
                   [&] { FillDummyTensor(config_, tensor, seed_, bytes); });
    return TensorRef{
        .name = tensor.name, .dtype = tensor.dtype, .shape = tensor.shape, .data = bytes};
  }
  const std::vector<std::string>& names() const override { return names_; }
  uint64_t total_bytes() const override { return total_bytes_; }
  const std::string& digest() const override { return digest_; }

 private:
  const ModelConfig config_;
  const uint64_t seed_;
  const std::string digest_;
  const std::vector<ExpectedTensor> tensors_;
  const std::vector<uint64_t> offsets_;
  const Reservation memory_;
  const std::unique_ptr<std::once_flag[]> made_;
  std::unordered_map<std::string_view, size_t> places_;  // keys: the tensors' names
  std::vector<std::string> names_;
  uint64_t total_bytes_ = 0;
};

}  // namespace

absl::StatusOr<std::unique_ptr<Checkpoint>> MakeDummyCheckpoint(
    const ModelConfig& config, uint64_t seed, std::string_view identity) {
  std::vector<ExpectedTensor> tensors =
      TensorInventory(config, DefaultEngramRowFormat(config));
  if (config.engram.has_value() && config.names == TensorNames::kNative) {
    tensors.push_back({.name = "engram.compressed_ids",
                       .kind = TensorKind::kEngramMap,
                       .format = StorageFormat::kI32,
                       .dtype = DType::kI32,
                       .shape = {config.vocab_size}});
  }
  std::vector<uint64_t> offsets;
  uint64_t end = 0;
  for (const ExpectedTensor& tensor : tensors) {
    offsets.push_back(end);
    end += (static_cast<uint64_t>(tensor.num_bytes()) + kAlignment - 1) / kAlignment *
           kAlignment;
  }
  TESSERA_ASSIGN_OR_RETURN(Reservation memory, Reservation::Make(end));
  std::string digest = DigestOf(tensors, seed, identity);
  return std::make_unique<DummyCheckpoint>(config, seed, std::move(digest),
                                           std::move(tensors), std::move(offsets),
                                           std::move(memory));
}

}  // namespace tessera::model
