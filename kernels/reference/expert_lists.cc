#include <algorithm>
#include <vector>

#include "kernels/reference/reference_ops.h"

namespace tessera::kernels::reference {
namespace {

// What `value_of_expert` says of the expert of slot j of token t, or -1 for none; an id
// that can be no expert's is noted.
int32_t ValueOfSlot(TensorView expert_ids, TensorView value_of_expert, TensorView fault,
                    int64_t t, int64_t j) {
  const int32_t id = expert_ids.row<int32_t>(t)[j];
  if (id >= 0 && id < value_of_expert.dim(0)) {
    return *value_of_expert.row<int32_t>(id);
  }
  if (id != -1) {
    int32_t& seen = *fault.as<int32_t>();
    seen = std::max(seen, static_cast<int32_t>(1 + t * expert_ids.dim(1) + j));
  }
  return -1;
}

}  // namespace

template <typename T>
void ListExpertItems(const ExpertItemsArgs& args) {
  const int64_t tokens = args.expert_ids.dim(0);
  const int64_t slots = args.expert_ids.dim(1);
  const int64_t experts = args.item_offsets.dim(0) - 1;
  int32_t item = 0;
  *args.item_offsets.row<int32_t>(0) = 0;
  for (int64_t t = 0; t < tokens; ++t) {
    std::fill_n(args.row_of_slot.row<int32_t>(t), slots, -1);
  }
  // One expert after the other, and the slots in order for each.
  for (int64_t expert = 0; expert < experts; ++expert) {
    for (int64_t t = 0; t < tokens; ++t) {
      for (int64_t j = 0; j < slots; ++j) {
        if (ValueOfSlot(args.expert_ids, args.local_of_expert, args.fault, t, j) !=
            expert) {
          continue;
        }
        *args.row_of_item.row<int32_t>(item) = static_cast<int32_t>(t);
        args.row_of_slot.row<int32_t>(t)[j] = item;
        if (args.weights.rank > 0) {
          *args.item_weights.row<T>(item) = args.weights.row<T>(t)[j];
        }
        ++item;
      }
    }
    *args.item_offsets.row<int32_t>(expert + 1) = item;
  }
}

void CountExperts(TensorView expert_ids, TensorView counts) {
  for (int64_t expert = 0; expert < counts.dim(0); ++expert) {
    int32_t count = 0;
    for (int64_t t = 0; t < expert_ids.dim(0); ++t) {
      const int32_t* ids = expert_ids.row<int32_t>(t);
      count += static_cast<int32_t>(
          std::count(ids, ids + expert_ids.dim(1), static_cast<int32_t>(expert)));
    }
    *counts.row<int32_t>(expert) = count;
  }
}

void PackSlots(TensorView row_of_slot, TensorView packed) {
  for (int64_t t = 0; t < packed.dim(0); ++t) {
    const int32_t* rows = row_of_slot.row<int32_t>(t);
    int32_t* out = packed.row<int32_t>(t);
    int64_t held = 0;
    for (int64_t j = 0; j < row_of_slot.dim(1); ++j) {
      if (rows[j] >= 0 && held < packed.dim(1)) {
        out[held++] = rows[j];
      }
    }
    std::fill(out + held, out + packed.dim(1), -1);
  }
}

void LocateReturns(const LocateReturnsArgs& args) {
  const int64_t tokens = args.expert_ids.dim(0);
  const int64_t slots = args.expert_ids.dim(1);
  for (int64_t t = 0; t < tokens; ++t) {
    std::vector<int32_t> owners;
    for (int64_t j = 0; j < slots; ++j) {
      const int32_t owner =
          ValueOfSlot(args.expert_ids, args.owner_of_expert, args.fault, t, j);
      const int64_t before = std::count(owners.begin(), owners.end(), owner);
      owners.push_back(owner);
      int64_t row = -1;
      if (owner >= 0 && before < args.places) {
        row = (owner * tokens + t) * args.places + before;
      } else if (owner >= 0) {
        int32_t& fault = *args.fault.as<int32_t>();
        fault = std::max(fault, static_cast<int32_t>(1 + t * slots + j));
      }
      args.row_of_slot.row<int32_t>(t)[j] = static_cast<int32_t>(row);
    }
  }
}

template void ListExpertItems<float>(const ExpertItemsArgs&);
template void ListExpertItems<double>(const ExpertItemsArgs&);

}  // namespace tessera::kernels::reference
