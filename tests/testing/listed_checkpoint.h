// ListedCheckpoint: a Checkpoint of names, dtypes and shapes without bytes, to be changed
// one tensor at a time.
#ifndef TESSERA_TESTS_TESTING_LISTED_CHECKPOINT_H_
#define TESSERA_TESTS_TESTING_LISTED_CHECKPOINT_H_

#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "gtest/gtest.h"

#include "common/status.h"
#include "model/formats/dtype.h"
#include "model/tensors/checkpoint.h"
#include "model/tensors/tensor_inventory.h"

namespace tessera::testing {

// One thread only.
class ListedCheckpoint final : public model::Checkpoint {
 public:
  explicit ListedCheckpoint(const std::vector<model::ExpectedTensor>& tensors) {
    for (const model::ExpectedTensor& tensor : tensors) {
      Set(tensor.name, tensor.dtype, tensor.shape);
    }
  }
  void Set(const std::string& name, model::DType dtype, std::vector<int64_t> shape) {
    tensors_[name] = {dtype, std::move(shape)};
    Rename();
  }
  void Remove(const std::string& name) {
    ASSERT_EQ(tensors_.erase(name), 1u) << name;
    Rename();
  }

  absl::StatusOr<model::TensorRef> Find(std::string_view name) const override {
    const auto found = tensors_.find(name);
    if (found == tensors_.end()) {
      return StatusF(absl::StatusCode::kNotFound, "no tensor {}", name);
    }
    return model::TensorRef{found->first, found->second.first, found->second.second, {}};
  }
  const std::vector<std::string>& names() const override {
    if (names_.empty()) {
      for (const auto& [name, tensor] : tensors_) {
        names_.push_back(name);
      }
    }
    return names_;
  }
  uint64_t total_bytes() const override { return 0; }
  const std::string& digest() const override { return digest_; }

 private:
  void Rename() { names_.clear(); }

  std::map<std::string, std::pair<model::DType, std::vector<int64_t>>, std::less<>>
      tensors_;
  mutable std::vector<std::string> names_;
  std::string digest_;
};

}  // namespace tessera::testing

#endif  // TESSERA_TESTS_TESTING_LISTED_CHECKPOINT_H_
