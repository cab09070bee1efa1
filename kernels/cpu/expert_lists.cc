// Lists of experts' items: counting sorts by one thread. They are a few thousand steps of
// a decode step or of a chunk, less than it costs to wake others.
#include <algorithm>

#include "kernels/cpu/cpu_ops.h"

namespace tessera::kernels::cpu {
namespace {

// What a list says of experts.
struct ExpertValues {
  explicit ExpertValues(const TensorView& list)
      : data(list.as<int32_t>()), stride(list.stride(0)), count(list.dim(0)) {
    TESSERA_CHECK_EQ(list.rank, 1);
  }
  // -1 where `id` is no expert's.
  int32_t Of(int32_t id) const { return Has(id) ? data[id * stride] : -1; }
  bool Has(int32_t id) const { return id >= 0 && id < count; }

  const int32_t* data;
  int64_t stride;
  int64_t count;
};

void Note(const TensorView& fault, int64_t slot) {
  int32_t& seen = *fault.as<int32_t>();
  seen = std::max(seen, static_cast<int32_t>(slot + 1));
}

void CheckIds(const TensorView& expert_ids, const TensorView& row_of_slot) {
  TESSERA_CHECK_EQ(row_of_slot.dim(0), expert_ids.dim(0));
  TESSERA_CHECK_EQ(row_of_slot.dim(1), expert_ids.dim(1));
  TESSERA_CHECK_LT(expert_ids.num_elements(), std::numeric_limits<int32_t>::max());
}

}  // namespace

void ListExpertItems(const ExpertItemsArgs& args) {
  CheckIds(args.expert_ids, args.row_of_slot);
  const int64_t tokens = args.expert_ids.dim(0);
  const int64_t slots = args.expert_ids.dim(1);
  const ExpertValues local(args.local_of_expert);
  const TensorView& offsets = args.item_offsets;
  const int64_t experts = offsets.dim(0) - 1;
  const auto offset = [&](int64_t i) -> int32_t& { return *offsets.row<int32_t>(i); };
  for (int64_t i = 0; i <= experts; ++i) {
    offset(i) = 0;
  }
  for (int64_t t = 0; t < tokens; ++t) {
    const int32_t* ids = args.expert_ids.row<int32_t>(t);
    for (int64_t j = 0; j < slots; ++j) {
      if (const int32_t expert = local.Of(ids[j]); expert >= 0) {
        ++offset(expert + 1);
      } else if (!local.Has(ids[j]) && ids[j] != -1) {
        Note(args.fault, t * slots + j);
      }
    }
  }
  for (int64_t i = 0; i < experts; ++i) {
    offset(i + 1) += offset(i);
  }
  // Where an expert's items begin counts up to where they end: the next one's beginning.
  for (int64_t t = 0; t < tokens; ++t) {
    const int32_t* ids = args.expert_ids.row<int32_t>(t);
    for (int64_t j = 0; j < slots; ++j) {
      const int32_t expert = local.Of(ids[j]);
      const int32_t item = expert >= 0 ? offset(expert)++ : -1;
      args.row_of_slot.row<int32_t>(t)[j] = item;
      if (item < 0) {
        continue;
      }
      *args.row_of_item.row<int32_t>(item) = static_cast<int32_t>(t);
      if (args.weights.rank > 0) {
        *args.item_weights.row<float>(item) = args.weights.row<float>(t)[j];
      }
    }
  }
  for (int64_t i = experts; i > 0; --i) {
    offset(i) = offset(i - 1);
  }
  offset(0) = 0;
}

void CountExperts(TensorView expert_ids, TensorView counts) {
  for (int64_t i = 0; i < counts.dim(0); ++i) {
    *counts.row<int32_t>(i) = 0;
  }
  for (int64_t t = 0; t < expert_ids.dim(0); ++t) {
    const int32_t* ids = expert_ids.row<int32_t>(t);
    for (int64_t j = 0; j < expert_ids.dim(1); ++j) {
      if (ids[j] >= 0 && ids[j] < counts.dim(0)) {
        ++*counts.row<int32_t>(ids[j]);
      }
    }
  }
}

void PackSlots(TensorView row_of_slot, TensorView packed) {
  TESSERA_CHECK_EQ(row_of_slot.dim(0), packed.dim(0));
  for (int64_t t = 0; t < packed.dim(0); ++t) {
    const int32_t* rows = row_of_slot.row<int32_t>(t);
    int32_t* out = packed.row<int32_t>(t);
    int64_t held = 0;
    for (int64_t j = 0; j < row_of_slot.dim(1) && held < packed.dim(1); ++j) {
      if (rows[j] >= 0) {
        out[held++] = rows[j];
      }
    }
    std::fill(out + held, out + packed.dim(1), -1);
  }
}

void LocateReturns(const LocateReturnsArgs& args) {
  CheckIds(args.expert_ids, args.row_of_slot);
  const int64_t tokens = args.expert_ids.dim(0);
  const int64_t slots = args.expert_ids.dim(1);
  const ExpertValues owners(args.owner_of_expert);
  for (int64_t t = 0; t < tokens; ++t) {
    const int32_t* ids = args.expert_ids.row<int32_t>(t);
    int32_t* rows = args.row_of_slot.row<int32_t>(t);
    for (int64_t j = 0; j < slots; ++j) {
      const int32_t owner = owners.Of(ids[j]);
      int64_t before = 0;
      for (int64_t other = 0; owner >= 0 && other < j; ++other) {
        before += owners.Of(ids[other]) == owner ? 1 : 0;
      }
      const bool fits = owner >= 0 && before < args.places;
      rows[j] =
          fits ? static_cast<int32_t>((owner * tokens + t) * args.places + before) : -1;
      if (owners.Has(ids[j]) ? owner >= 0 && !fits : ids[j] != -1) {
        Note(args.fault, t * slots + j);
      }
    }
  }
}

}  // namespace tessera::kernels::cpu
