// ExpertItems: the expert-major item list of one rank, built by a counting sort. Items
// come in the order (source rank, row, router slot) and keep it inside each expert, so
// the list is a function of the routing alone. It also keeps the items' routing weights
// where those travel.
#ifndef TESSERA_WORKER_COMM_EXPERT_ITEMS_H_
#define TESSERA_WORKER_COMM_EXPERT_ITEMS_H_

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "kernels/runtime/device_buffer.h"
#include "kernels/tensor_view.h"

namespace tessera::worker {

// Step thread only. Allocates at construction only; the lists that ops read lie in memory
// of the backend. One round: Begin, Count for every
// item, Offset, Place for every item in the same order.
class ExpertItems {
 public:
  // `expert_owner[e]` is the rank of expert e; the experts of `rank` get local indices in
  // rising order. `weights` is the type of the items' weights, if they have any.
  // `memory` has MemoryBytes of the same arguments.
  ExpertItems(std::span<const int> expert_owner, int rank, int64_t max_items,
              std::optional<kernels::DType> weights, kernels::DeviceBuffer memory);
  static size_t MemoryBytes(std::span<const int> expert_owner, int64_t max_items,
                            std::optional<kernels::DType> weights);

  std::span<const int> local_experts() const { return local_experts_; }

  void Begin();
  // `expert` belongs to this rank.
  void Count(int32_t expert) {
    ++offsets()[static_cast<size_t>(local_index(expert)) + 1];
  }
  // Counts become offsets.
  void Offset();
  // The item's place in the list.
  int32_t Place(int32_t expert, int32_t row) {
    const int32_t item = cursors_[static_cast<size_t>(local_index(expert))]++;
    row_of_item_[item] = row;
    return item;
  }

  // Copies the weight of an item that was placed; a no-op where items have none.
  void SetWeight(int32_t item, const std::byte* weight);

  int64_t num_items() const { return offsets().back(); }
  kernels::TensorView row_of_item();   // [num_items] i32
  kernels::TensorView item_offsets();  // [num_local_experts + 1] i32
  kernels::TensorView item_weights();  // [num_items], or rank 0

 private:
  std::span<int32_t> offsets() const { return {offsets_, local_experts_.size() + 1}; }
  int32_t local_index(int32_t expert) const {
    return local_of_expert_[static_cast<size_t>(expert)];
  }

  std::vector<int> local_experts_;
  std::vector<int32_t> local_of_expert_;  // -1: on another rank
  std::vector<int32_t> cursors_;
  const std::optional<kernels::DType> weight_dtype_;
  const size_t weight_bytes_;  // of one; 0: none
  kernels::DeviceBuffer memory_;
  // In memory_: the items' weights, their rows, the offsets of the local experts.
  std::byte* item_weights_ = nullptr;
  int32_t* row_of_item_ = nullptr;
  int32_t* offsets_ = nullptr;
};

}  // namespace tessera::worker

#endif  // TESSERA_WORKER_COMM_EXPERT_ITEMS_H_
