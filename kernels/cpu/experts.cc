#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "kernels/cpu/cpu_ops.h"
#include "kernels/cpu/packed_weight.h"

namespace tessera::kernels::cpu {
namespace {

// Weight rows that are one unit of work: those of one token's experts make enough units
// for the threads of a machine, and 64 rows against the items of a pass fit a cache near
// the core.
constexpr int64_t kRowsPerUnit = 64;

struct Range {
  int64_t begin;
  int64_t end;
  int64_t size() const { return end - begin; }
};

// The items of one expert that a run holds. Places are where their inputs in 8 bits lie.
struct Segment {
  int64_t expert;
  int64_t begin;  // items
  int64_t end;
  int64_t place;  // of item `begin`
};

// Segments of a run lie in the offsets of thread 0, which the ops of experts leave alone.
constexpr int64_t kMostItems = kMaxTopk;
static_assert(sizeof(Segment) == 4 * sizeof(int64_t));

enum class Side { kInputs, kHidden };  // what gate and up take, and what down takes

// Some items against some rows of a weight.
struct Product {
  Side side;
  int64_t place;   // of the first item
  const float* x;  // the items' inputs, where they are not rounded
  int64_t x_stride;
  const int32_t* x_rows;  // or null: one after the other
  int64_t count;
  float* out;  // of the first item and weight row 0
  int64_t out_stride;
  float* scratch;  // of the thread
};

// How a kind of products keeps its inputs: items of one expert take whole blocks of
// kBlockItems places, and kItemsPerPass at a time meet the weights of a unit.

// Products whose inputs stay floats.
class FloatProducts {
 public:
  static constexpr bool kRoundsInputs = false;
  static constexpr int64_t kBlockItems = 1;
  static constexpr int64_t kItemsPerPass = 32;

  FloatProducts(CpuContext& context, const GroupedExpertsArgs& /*args*/)
      : context_(context) {}

  int64_t floats_per_place() const { return 0; }
  void Use(float* /*memory*/, int64_t /*places*/) {}
  void Round(Side /*side*/, const float* /*x*/, int64_t /*place*/) {}

  void Multiply(const WeightView& w, Range rows, const Product& product) const {
    LinearTask task = {};
    task.x = product.x;
    task.x_stride = product.x_stride;
    task.x_rows = product.x_rows;
    task.count = product.count;
    task.out = product.out;
    task.out_stride = product.out_stride;
    task.scratch = product.scratch;
    task.num_leaves = 1;
    task.leaf_begin[1] = w.cols;
    task.weights = ToWeightRows(w);
    task.row_begin = rows.begin;
    task.row_end = rows.end;
    context_.simd().linear(task);
  }

 private:
  CpuContext& context_;
};

int64_t Int8Blocks(int64_t values) {
  return (values + kInt8BlockValues - 1) / kInt8BlockValues;
}

// Products of e2m1 weights, as the checkpoint has them, with inputs in 8 bits.
class Int8Products {
 public:
  static constexpr bool kRoundsInputs = true;
  static constexpr int64_t kBlockItems = 1;
  // Inputs in 8 bits are a quarter as large, and packed weights are unpacked in every
  // pass.
  static constexpr int64_t kItemsPerPass = 64;

  // A property of the weights alone.
  static bool Takes(const ExpertWeights& weights) {
    return Takes(weights.gate) && Takes(weights.up) && Takes(weights.down);
  }

  Int8Products(CpuContext& context, const GroupedExpertsArgs& args)
      : context_(context), values_{args.x.dim(1), args.experts[0].gate.rows}, rows_{} {
    TESSERA_CHECK_LE(values_[0] + kInt8BlockValues, kScratchFloats);
  }

  int64_t floats_per_place() const {
    return (Int8Blocks(values_[0]) + Int8Blocks(values_[1])) * kInt8BlockFloats;
  }
  void Use(float* memory, int64_t places) {
    for (size_t side = 0; side < 2; ++side) {
      const int64_t blocks = Int8Blocks(values_[side]);
      float* const scales = memory + places * blocks * kInt8BlockValues / 4;
      rows_[side] = {reinterpret_cast<int8_t*>(memory), scales,
                     reinterpret_cast<int32_t*>(scales + places * blocks * 16), blocks};
      memory += places * blocks * kInt8BlockFloats;
    }
  }
  void Round(Side side, const float* x, int64_t place) {
    const auto at = static_cast<size_t>(side);
    context_.simd().quantize_int8(x, values_[at], rows_[at], place);
  }

  void Multiply(const WeightView& w, Range rows, const Product& product) const {
    const Int8Rows& all = rows_[static_cast<size_t>(product.side)];
    const int64_t before = product.place * all.blocks;
    context_.simd().int8_linear(
        {.weights = ToWeightRows(w),
         .row_begin = rows.begin,
         .row_end = rows.end,
         .inputs = w.cols,
         .x = {all.codes + before * kInt8BlockValues, all.scales + before * 16,
               all.offsets + before * 16, all.blocks},
         .count = product.count,
         .out = product.out,
         .out_stride = product.out_stride,
         .scratch = product.scratch});
  }

 private:
  static bool Takes(const WeightView& w) {
    return w.dtype == DType::kFp4 && w.has_scales() && w.block_rows == 1 &&
           w.block_cols == kInt8GroupValues && w.cols % kInt8GroupValues == 0 &&
           w.col_offset % kInt8GroupValues == 0;
  }

  CpuContext& context_;
  const int64_t values_[2];  // of a row, by side
  Int8Rows rows_[2];
};

// Products of weights that Prepare has made a copy of in 8 bits. Items of one expert
// begin a block of rows.
class RoundedProducts {
 public:
  static constexpr bool kRoundsInputs = true;
  static constexpr int64_t kBlockItems = kRoundedBlockRows;
  // What rounded_linear takes through its weights at a time, at a width of 2048.
  static constexpr int64_t kItemsPerPass = 96;
  static_assert(kItemsPerPass % kRoundedBlockRows == 0);

  RoundedProducts(CpuContext& context, const GroupedExpertsArgs& args)
      : context_(context),
        leaves_{PackedOf(args.experts[0].gate).leaves,
                PackedOf(args.experts[0].down).leaves},
        rows_{} {}

  int64_t floats_per_place() const {
    return (NumGroups(leaves_[0]) + NumGroups(leaves_[1])) *
           RoundedGroupFloats(context_.simd());
  }
  void Use(float* memory, int64_t places) {
    for (size_t side = 0; side < 2; ++side) {
      rows_[side] = RoundedRowsAt(context_.simd(), memory, places, leaves_[side]);
      memory += places * NumGroups(leaves_[side]) * RoundedGroupFloats(context_.simd());
    }
  }
  void Round(Side side, const float* x, int64_t place) {
    const auto at = static_cast<size_t>(side);
    context_.simd().round_row(x, leaves_[at], rows_[at], place);
  }

  void Multiply(const WeightView& w, Range rows, const Product& product) const {
    const PackedWeight& packed = PackedOf(w);
    context_.simd().rounded_linear({.codes = packed.codes,
                                    .steps = packed.steps,
                                    .leaves = packed.leaves,
                                    .row_begin = w.packed_row + rows.begin,
                                    .row_end = w.packed_row + rows.end,
                                    .x = rows_[static_cast<size_t>(product.side)],
                                    .x_row = product.place,
                                    .count = product.count,
                                    .out = product.out + rows.begin,
                                    .out_stride = product.out_stride});
  }

 private:
  CpuContext& context_;
  const LeafGroups leaves_[2];  // by side
  RoundedRows rows_[2];
};

// As many items as the context has room for, in order, so that every thread takes part
// in every expert: gate and up in units of weight rows, then down. Bits do not depend on
// the cuts.
template <typename Products>
class ExpertRun {
 public:
  ExpertRun(CpuContext& context, const GroupedExpertsArgs& args)
      : context_(context),
        args_(args),
        products_(context, args),
        inputs_(args.x.dim(1)),
        inner_(args.experts[0].gate.rows),
        segments_(reinterpret_cast<Segment*>(context.scratch(0).offsets)) {
    TESSERA_CHECK_LE(inputs_, kScratchFloats);
    TESSERA_CHECK_LE(FloatsOf(1), kExpertFloats);
  }

  // The end of the run that begins at item `begin`: as many as there is room for, but no
  // part of an expert that could be whole in the next run, since weights that come twice
  // are read, or unpacked, twice.
  int64_t EndOfRun(int64_t begin, int64_t items) const {
    const auto* offsets = args_.item_offsets.as<int32_t>();
    constexpr int64_t kBlock = Products::kBlockItems;
    int64_t items_left = kMostItems;
    int64_t floats_left = kExpertFloats;
    int64_t end = begin;
    for (size_t expert = 0; end < items; ++expert) {
      const int64_t count = offsets[expert + 1] - end;
      if (count <= 0) {
        continue;
      }
      if (count > items_left || FloatsOf(count) > floats_left) {
        const int64_t fit = std::min(floats_left / FloatsOf(kBlock) * kBlock, items_left);
        return end > begin ? end : begin + std::clamp<int64_t>(fit, 1, count);
      }
      items_left -= count;
      floats_left -= FloatsOf(count);
      end += count;
    }
    return end;
  }

  void Run(int64_t begin, int64_t end) {
    begin_ = begin;
    end_ = end;
    const int64_t places = FindSegments();
    gate_ = context_.expert_items();
    up_ = gate_ + (end - begin) * inner_;
    products_.Use(up_ + (end - begin) * inner_, places);
    const int32_t* row_of_item = args_.row_of_item.as<int32_t>() + begin;
    RoundItems(Side::kInputs, inputs_,
               [&](int64_t i) { return args_.x.row<float>(row_of_item[i]); });
    ForEachUnit(inner_, 2 * inputs_,
                [this](const Segment& segment, Range rows, int thread) {
                  ForEachPass(segment, [&](Range items, int64_t place) {
                    GateAndUp(segment.expert, items, place, rows, thread);
                  });
                });
    RoundItems(Side::kHidden, inner_, [&](int64_t i) { return gate_ + i * inner_; });
    ForEachUnit(inputs_, inner_, [this](const Segment& segment, Range rows, int thread) {
      ForEachPass(segment, [&](Range items, int64_t place) {
        Down(segment.expert, items, place, rows, thread);
      });
    });
  }

 private:
  // Places of `items` items of one expert.
  static int64_t PlacesOf(int64_t items) {
    constexpr int64_t kBlock = Products::kBlockItems;
    return (items + kBlock - 1) / kBlock * kBlock;
  }
  // Gate, up, and the inputs of both sides.
  int64_t FloatsOf(int64_t items) const {
    return 2 * items * inner_ + PlacesOf(items) * products_.floats_per_place();
  }

  // Returns the number of places.
  int64_t FindSegments() {
    const int32_t* offsets = args_.item_offsets.as<int32_t>();
    num_segments_ = 0;
    int64_t places = 0;
    const auto experts = static_cast<int64_t>(args_.experts.size());
    for (int64_t expert = 0; expert < experts; ++expert) {
      const int64_t begin = std::max<int64_t>(offsets[expert], begin_);
      const int64_t end = std::min<int64_t>(offsets[expert + 1], end_);
      if (begin < end) {
        segments_[num_segments_++] = {expert, begin, end, places};
        places += PlacesOf(end - begin);
      }
    }
    return places;
  }

  // visit(segment, rows, thread) for all weight rows of all segments: a unit at a time,
  // or, of segments with few items, all units of a piece, so that a thread reads a weight
  // for long before it turns to the next. In multiply-adds, reading the weights of a unit
  // costs as much as about kReadItems items.
  template <typename Visit>
  void ForEachUnit(int64_t rows, int64_t values_per_row, const Visit& visit) {
    constexpr int64_t kReadItems = 4;
    const int64_t units = (rows + kRowsPerUnit - 1) / kRowsPerUnit;
    const int64_t cost = end_ - begin_ + num_segments_ * kReadItems;
    context_.ParallelForShared(
        num_segments_ * units,
        units * cost * std::min(rows, kRowsPerUnit) * values_per_row,
        [&](int64_t begin, int64_t end, int thread) {
          while (begin < end) {
            const Segment& segment = segments_[begin / units];
            const int64_t unit = begin % units;
            const int64_t count = segment.end - segment.begin <= kReadItems
                                      ? std::min(end - begin, units - unit)
                                      : 1;
            visit(segment,
                  {unit * kRowsPerUnit, std::min(rows, (unit + count) * kRowsPerUnit)},
                  thread);
            begin += count;
          }
        });
  }

  // visit(items, place of the first one), as many as meet the same weights at a time.
  template <typename Visit>
  static void ForEachPass(const Segment& segment, const Visit& visit) {
    for (int64_t item = segment.begin; item < segment.end;
         item += Products::kItemsPerPass) {
      visit(Range{item, std::min(item + Products::kItemsPerPass, segment.end)},
            segment.place + item - segment.begin);
    }
  }

  // row(i): the `values` values of the i-th item of the run.
  template <typename Row>
  void RoundItems(Side side, int64_t values, const Row& row) {
    if constexpr (Products::kRoundsInputs) {
      context_.ParallelFor(
          end_ - begin_, (end_ - begin_) * values, [&](int64_t begin, int64_t end, int) {
            for (int64_t s = 0; s < num_segments_; ++s) {
              const int64_t first = segments_[s].begin - begin_;
              const int64_t last = std::min(end, segments_[s].end - begin_);
              for (int64_t i = std::max(begin, first); i < last; ++i) {
                products_.Round(side, row(i), segments_[s].place + i - first);
              }
            }
          });
    }
  }

  // gate = silu(gate) up of some weight rows, times the items' weights where they come
  // before `down`.
  void GateAndUp(int64_t expert, Range items, int64_t place, Range rows, int thread) {
    const ExpertWeights& weights = args_.experts[static_cast<size_t>(expert)];
    float* gate = gate_ + (items.begin - begin_) * inner_;
    float* up = up_ + (items.begin - begin_) * inner_;
    Product product = {.side = Side::kInputs,
                       .place = place,
                       .x = args_.x.as<float>(),
                       .x_stride = args_.x.stride(0),
                       .x_rows = args_.row_of_item.as<int32_t>() + items.begin,
                       .count = items.size(),
                       .out = gate,
                       .out_stride = inner_,
                       .scratch = context_.scratch(thread).panel};
    products_.Multiply(weights.gate, rows, product);
    product.out = up;
    products_.Multiply(weights.up, rows, product);
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

  void Down(int64_t expert, Range items, int64_t place, Range rows, int thread) {
    products_.Multiply(args_.experts[static_cast<size_t>(expert)].down, rows,
                       {.side = Side::kHidden,
                        .place = place,
                        .x = gate_ + (items.begin - begin_) * inner_,
                        .x_stride = inner_,
                        .x_rows = nullptr,
                        .count = items.size(),
                        .out = args_.out.row<float>(items.begin),
                        .out_stride = args_.out.stride(0),
                        .scratch = context_.scratch(thread).panel});
  }

  CpuContext& context_;
  const GroupedExpertsArgs& args_;
  Products products_;
  const int64_t inputs_;
  const int64_t inner_;
  Segment* const segments_;
  int64_t num_segments_ = 0;
  int64_t begin_ = 0;  // items of this run
  int64_t end_ = 0;
  float* gate_ = nullptr;  // [items, m]
  float* up_ = nullptr;
};

template <typename Products>
void RunAll(CpuContext& context, const GroupedExpertsArgs& args, int64_t items) {
  ExpertRun<Products> run(context, args);
  for (int64_t begin = 0; begin < items;) {
    const int64_t end = run.EndOfRun(begin, items);
    run.Run(begin, end);
    begin = end;
  }
}

}  // namespace

void GroupedExperts(CpuContext& context, const GroupedExpertsArgs& args) {
  const auto experts = static_cast<int64_t>(args.experts.size());
  TESSERA_CHECK_EQ(args.item_offsets.dim(0), experts + 1);
  const int64_t items = args.item_offsets.as<int32_t>()[experts];
  if (items == 0) {
    return;
  }
  const ExpertWeights& first = args.experts[0];  // the others are of its format
  if (first.gate.rounded) {
    RunAll<RoundedProducts>(context, args, items);
  } else if (context.rounds_experts() && Int8Products::Takes(first)) {
    RunAll<Int8Products>(context, args, items);
  } else {
    RunAll<FloatProducts>(context, args, items);
  }
}

}  // namespace tessera::kernels::cpu
