#include <algorithm>

#include "kernels/cpu/cpu_ops.h"

namespace tessera::kernels::cpu {
namespace {

// Weight rows that are one unit of work: those of one token's experts make enough units
// for the threads of a machine, and 64 rows against kItemsPerPass items fit a cache near
// the core.
constexpr int64_t kRowsPerUnit = 64;
constexpr int64_t kItemsPerPass = 32;
// Inputs in 8 bits are a quarter as large, and packed weights are unpacked in every pass.
constexpr int64_t kRoundedItemsPerPass = 64;

// The items of one expert that a run holds.
struct Segment {
  int64_t expert;
  int64_t begin;  // items
  int64_t end;
};

// Segments of a run lie in the offsets of thread 0, which the ops of experts leave alone.
constexpr int64_t kMostItems = 4 * kMaxTopk / 3;
static_assert(sizeof(Segment) == 3 * sizeof(int64_t));

// Whether products with `w` may have their inputs in 8 bits: a property of the weight
// alone.
bool TakesInt8(const WeightView& w) {
  return w.dtype == DType::kFp4 && w.has_scales() && w.block_rows == 1 &&
         w.block_cols == kInt8GroupValues && w.cols % kInt8GroupValues == 0 &&
         w.col_offset % kInt8GroupValues == 0;
}

int64_t Int8Blocks(int64_t values) {
  return (values + kInt8BlockValues - 1) / kInt8BlockValues;
}

// Room for `rows` rows of `values` values at `at`.
Int8Rows Int8RowsAt(float* at, int64_t rows, int64_t values) {
  const int64_t blocks = Int8Blocks(values);
  float* scales = at + rows * blocks * kInt8BlockValues / 4;
  return {reinterpret_cast<int8_t*>(at), scales,
          reinterpret_cast<int32_t*>(scales + rows * blocks * 16), blocks};
}

Int8Rows From(const Int8Rows& x, int64_t row) {
  return {x.codes + row * x.blocks * kInt8BlockValues, x.scales + row * x.blocks * 16,
          x.offsets + row * x.blocks * 16, x.blocks};
}

// As many items as the context has room for, in order, so that every thread takes part
// in every expert: gate and up in units of weight rows, then down. Bits do not depend on
// the cuts.
class ExpertRun {
 public:
  ExpertRun(CpuContext& context, const GroupedExpertsArgs& args)
      : context_(context),
        args_(args),
        inputs_(args.x.dim(1)),
        inner_(args.experts[0].gate.rows),
        rounded_(context.rounds_experts() && TakesInt8(args.experts[0].gate) &&
                 TakesInt8(args.experts[0].up) && TakesInt8(args.experts[0].down)),
        segments_(reinterpret_cast<Segment*>(context.scratch(0).offsets)) {
    TESSERA_CHECK_LE(inputs_ + kInt8BlockValues, kScratchFloats);
    TESSERA_CHECK_LE(floats_per_item(), kExpertFloats);
  }

  // The end of the run that begins at item `begin`: as many as there is room for, but no
  // part of an expert that could be whole in the next run, since weights that come twice
  // are unpacked twice.
  int64_t EndOfRun(int64_t begin, int64_t items) const {
    const int64_t most = std::min(kMostItems, kExpertFloats / floats_per_item());
    if (items - begin <= most) {
      return items;
    }
    const auto* offsets = args_.item_offsets.as<int32_t>();
    const int32_t* after =
        std::upper_bound(offsets, offsets + args_.experts.size() + 1, begin + most);
    const int64_t whole = *(after - 1);
    return whole > begin ? whole : begin + most;
  }

  void Run(int64_t begin, int64_t end) {
    begin_ = begin;
    end_ = end;
    FindSegments();
    gate_ = context_.expert_items();
    up_ = gate_ + (end - begin) * inner_;
    float* rest = up_ + (end - begin) * inner_;
    if (rounded_) {
      x_ = Int8RowsAt(rest, end - begin, inputs_);
      rest += (end - begin) * Int8Blocks(inputs_) * kInt8BlockFloats;
      hidden_ = Int8RowsAt(rest, end - begin, inner_);
      RoundInputs();
    }
    ForEachUnit(
        inner_, 2 * inputs_,
        [this](const Segment& segment, int64_t row, int64_t row_end, int thread) {
          for (int64_t item = segment.begin; item < segment.end;
               item += items_per_pass()) {
            const int64_t count = std::min(items_per_pass(), segment.end - item);
            GateAndUp(segment.expert, {item, item + count}, {row, row_end}, thread);
          }
        });
    if (rounded_) {
      RoundHidden();
    }
    ForEachUnit(inputs_, inner_,
                [this](const Segment& segment, int64_t row, int64_t row_end, int thread) {
                  for (int64_t item = segment.begin; item < segment.end;
                       item += items_per_pass()) {
                    const int64_t count = std::min(items_per_pass(), segment.end - item);
                    Down(segment.expert, {item, item + count}, {row, row_end}, thread);
                  }
                });
  }

 private:
  struct Range {
    int64_t begin;
    int64_t end;
    int64_t size() const { return end - begin; }
  };

  int64_t items_per_pass() const {
    return rounded_ ? kRoundedItemsPerPass : kItemsPerPass;
  }

  int64_t floats_per_item() const {
    const int64_t codes =
        rounded_ ? (Int8Blocks(inputs_) + Int8Blocks(inner_)) * kInt8BlockFloats : 0;
    return 2 * inner_ + codes;
  }

  void FindSegments() {
    const int32_t* offsets = args_.item_offsets.as<int32_t>();
    num_segments_ = 0;
    const auto experts = static_cast<int64_t>(args_.experts.size());
    for (int64_t expert = 0; expert < experts; ++expert) {
      const int64_t begin = std::max<int64_t>(offsets[expert], begin_);
      const int64_t end = std::min<int64_t>(offsets[expert + 1], end_);
      if (begin < end) {
        segments_[num_segments_++] = {expert, begin, end};
      }
    }
  }

  // visit(segment, row, row_end, thread) for all weight rows of all segments. Shares are
  // even where reading the weights of a unit costs as much as about kReadItems items.
  template <typename Visit>
  void ForEachUnit(int64_t rows, int64_t values_per_row, const Visit& visit) {
    constexpr int64_t kReadItems = 4;
    const int64_t units = (rows + kRowsPerUnit - 1) / kRowsPerUnit;
    const int64_t total = units * (end_ - begin_ + num_segments_ * kReadItems);
    context_.ParallelFor(
        total, total * std::min(rows, kRowsPerUnit) * values_per_row,
        [&](int64_t begin, int64_t end, int thread) {
          // A unit belongs to the thread whose part of the total holds its middle.
          int64_t middle_before = 0;
          for (int64_t s = 0; s < num_segments_; ++s) {
            const Segment& segment = segments_[s];
            const int64_t cost = segment.end - segment.begin + kReadItems;
            for (int64_t unit = 0; unit < units; ++unit, middle_before += cost) {
              const int64_t middle = middle_before + cost / 2;
              if (middle >= begin && middle < end) {
                visit(segment, unit * kRowsPerUnit,
                      std::min(rows, (unit + 1) * kRowsPerUnit), thread);
              }
            }
          }
        });
  }

  void RoundInputs() {
    context_.ParallelFor(
        end_ - begin_, (end_ - begin_) * inputs_, [&](int64_t begin, int64_t end, int) {
          const int32_t* row_of_item = args_.row_of_item.as<int32_t>() + begin_;
          for (int64_t i = begin; i < end; ++i) {
            context_.simd().quantize_int8(args_.x.row<float>(row_of_item[i]), inputs_, x_,
                                          i);
          }
        });
  }
  void RoundHidden() {
    context_.ParallelFor(
        end_ - begin_, (end_ - begin_) * inner_, [&](int64_t begin, int64_t end, int) {
          for (int64_t i = begin; i < end; ++i) {
            context_.simd().quantize_int8(gate_ + i * inner_, inner_, hidden_, i);
          }
        });
  }

  // Rows of a matrix against items from `item` on, whose inputs are those of `task`, or
  // of `codes` where they are rounded.
  void Multiply(const WeightView& w, Range rows, LinearTask task, const Int8Rows& codes) {
    if (!rounded_) {
      task.num_leaves = 1;
      task.leaf_begin[1] = w.cols;
      task.weights = ToWeightRows(w);
      task.row_begin = rows.begin;
      task.row_end = rows.end;
      context_.simd().linear(task);
      return;
    }
    context_.simd().int8_linear({.weights = ToWeightRows(w),
                                 .row_begin = rows.begin,
                                 .row_end = rows.end,
                                 .inputs = w.cols,
                                 .x = codes,
                                 .count = task.count,
                                 .out = task.out,
                                 .out_stride = task.out_stride,
                                 .scratch = task.scratch});
  }

  // gate = silu(gate) up of some weight rows, times the items' weights where they come
  // before `down`.
  void GateAndUp(int64_t expert, Range items, Range rows, int thread) {
    const ExpertWeights& weights = args_.experts[static_cast<size_t>(expert)];
    float* gate = gate_ + (items.begin - begin_) * inner_;
    float* up = up_ + (items.begin - begin_) * inner_;
    LinearTask task = {};
    task.x = args_.x.as<float>();
    task.x_stride = args_.x.stride(0);
    task.x_rows = args_.row_of_item.as<int32_t>() + items.begin;
    task.count = items.size();
    task.out = gate;
    task.out_stride = inner_;
    task.scratch = context_.scratch(thread).panel;
    const Int8Rows codes = rounded_ ? From(x_, items.begin - begin_) : Int8Rows{};
    Multiply(weights.gate, rows, task, codes);
    task.out = up;
    Multiply(weights.up, rows, task, codes);
    const float limit = ActivationLimit(args_.swiglu_limit);
    for (int64_t i = 0; i < items.size(); ++i) {
      float* values = gate + i * inner_ + rows.begin;
      context_.simd().silu_mul(values, up + i * inner_ + rows.begin, limit, values,
                               rows.size());
      if (args_.item_weights.rank > 0) {
        const float weight = args_.item_weights.as<float>()[items.begin + i];
        for (int64_t row = 0; row < rows.size(); ++row) {
          values[row] *= weight;
        }
      }
    }
  }

  void Down(int64_t expert, Range items, Range rows, int thread) {
    LinearTask task = {};
    task.x = gate_ + (items.begin - begin_) * inner_;
    task.x_stride = inner_;
    task.count = items.size();
    task.out = args_.out.row<float>(items.begin);
    task.out_stride = args_.out.stride(0);
    task.scratch = context_.scratch(thread).panel;
    Multiply(args_.experts[static_cast<size_t>(expert)].down, rows, task,
             rounded_ ? From(hidden_, items.begin - begin_) : Int8Rows{});
  }

  CpuContext& context_;
  const GroupedExpertsArgs& args_;
  const int64_t inputs_;
  const int64_t inner_;
  const bool rounded_;
  Segment* const segments_;
  int64_t num_segments_ = 0;
  int64_t begin_ = 0;  // items of this run
  int64_t end_ = 0;
  float* gate_ = nullptr;  // [items, m]
  float* up_ = nullptr;
  Int8Rows x_ = {};       // [items, d]
  Int8Rows hidden_ = {};  // [items, m]
};

}  // namespace

void GroupedExperts(CpuContext& context, const GroupedExpertsArgs& args) {
  const auto experts = static_cast<int64_t>(args.experts.size());
  TESSERA_CHECK_EQ(args.item_offsets.dim(0), experts + 1);
  const int64_t items = args.item_offsets.as<int32_t>()[experts];
  if (items == 0) {
    return;
  }
  ExpertRun run(context, args);
  for (int64_t begin = 0; begin < items;) {
    const int64_t end = run.EndOfRun(begin, items);
    run.Run(begin, end);
    begin = end;
  }
}

}  // namespace tessera::kernels::cpu
