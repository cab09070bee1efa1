// PatchedCheckpoint: another checkpoint in which the bytes of single tensors differ.
#ifndef TESSERA_TESTS_TESTING_PATCHED_CHECKPOINT_H_
#define TESSERA_TESTS_TESTING_PATCHED_CHECKPOINT_H_

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"

#include "model/tensors/checkpoint.h"

namespace tessera::testing {

// Borrows the checkpoint. One thread only.
class PatchedCheckpoint final : public model::Checkpoint {
 public:
  explicit PatchedCheckpoint(const model::Checkpoint* base) : base_(base) {}

  // The bytes of a tensor that the base has, to be changed; `offset` moves them from an
  // aligned address.
  std::byte* Patch(const std::string& name, size_t offset = 0) {
    const model::TensorRef tensor = base_->Find(name).value();
    std::vector<std::byte>& bytes = patches_[name];
    bytes.resize(offset + tensor.data.size());
    std::memcpy(bytes.data() + offset, tensor.data.data(), tensor.data.size());
    return bytes.data() + offset;
  }

  absl::StatusOr<model::TensorRef> Find(std::string_view name) const override {
    absl::StatusOr<model::TensorRef> tensor = base_->Find(name);
    const auto patch = patches_.find(name);
    if (tensor.ok() && patch != patches_.end()) {
      tensor->data = std::span<const std::byte>(patch->second).last(tensor->data.size());
    }
    return tensor;
  }
  const std::vector<std::string>& names() const override { return base_->names(); }
  uint64_t total_bytes() const override { return base_->total_bytes(); }
  const std::string& digest() const override { return base_->digest(); }

 private:
  const model::Checkpoint* const base_;
  std::map<std::string, std::vector<std::byte>, std::less<>> patches_;
};

}  // namespace tessera::testing

#endif  // TESSERA_TESTS_TESTING_PATCHED_CHECKPOINT_H_
