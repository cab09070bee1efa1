// Parity rows of attention, residual streams, mixture of experts and Engram.
#include <algorithm>
#include <cstring>

#include "fmt/format.h"

#include "tests/parity/op_run.h"
#include "tests/parity/paged_cases.h"

namespace tessera::parity {
namespace {

using kernels::EngramConvArgs;
using kernels::EngramGateArgs;
using kernels::EngramGateSign;
using kernels::ExpertWeights;
using kernels::GroupedExpertsArgs;
using kernels::HyperCoefficientsArgs;
using kernels::IndexerSelectArgs;
using kernels::MlaAttentionArgs;
using kernels::RouterArgs;
using kernels::RouterScore;

struct AttentionShape {
  int64_t rows;
  int64_t heads;
  int64_t dim;
  int64_t rope_dim;
  int64_t first;
  int64_t topk;
  bool packed = false;
  int64_t padding = 0;

  QueryRows queries() const { return {rows, first, 3, padding}; }
  // Whether every query sees so few positions that all are selected.
  bool selects_all() const {
    return rows == 0 || queries().Position(rows - padding - 1) < topk;
  }
};

// In groups of 24, which no vector length divides; the last one may be short.
kernels::RowFormat E4M3Row(int64_t width, int64_t coded) {
  return {kernels::RowCode::kE4M3, kernels::RowScale::kF32, width, coded, 24};
}

ParityCase IndexerCase(AttentionShape shape) {
  return {fmt::format("IndexerSelect_{}x{}x{}_from{}_top{}{}_pad{}", shape.rows,
                      shape.heads, shape.dim, shape.first, shape.topk,
                      shape.packed ? "_packed" : "", shape.padding),
          [=](OpRun& run) {
            const Paged paged = MakePaged(run, shape.queries(), 5);
            IndexerSelectArgs all;
            all.q = run.Random({shape.rows, shape.heads, shape.dim});
            all.weights = run.Random({shape.rows, shape.heads});
            all.keys = run.Random({paged.num_blocks, 5, shape.dim});
            if (shape.packed) {
              all.keys = run.Packed(all.keys.rows, E4M3Row(shape.dim, shape.dim));
            }
            all.index = paged.index;
            all.topk = shape.topk;
            all.selected = run.IntOutput("selected", {shape.rows, shape.topk});
            all.num_selected = run.IntOutput("num_selected", {shape.rows});
            const auto select = [&] {
              run.ForRows(shape.rows, [&](int64_t begin, int64_t count) {
                IndexerSelectArgs args = all;
                if (all.q.rank > 0) {
                  args.q = all.q.Rows(begin, count);
                  args.weights = all.weights.Rows(begin, count);
                }
                args.index = RowsOf(all.index, begin, count);
                args.selected = all.selected.Rows(begin, count);
                args.num_selected = all.num_selected.Rows(begin, count);
                run.backend().IndexerSelect(run.stream(), args);
              });
            };
            select();
            if (shape.selects_all()) {
              all.q = {};
              all.weights = {};
              all.selected = run.IntOutput("all_selected", {shape.rows, shape.topk});
              all.num_selected = run.IntOutput("all_num_selected", {shape.rows});
              select();
            }
          }};
}

// topk 0: over everything visible.
ParityCase AttentionCase(AttentionShape shape) {
  return {
      fmt::format("MlaAttention_{}x{}x{}+{}_from{}_top{}{}_pad{}", shape.rows,
                  shape.heads, shape.dim, shape.rope_dim, shape.first, shape.topk,
                  shape.packed ? "_packed" : "", shape.padding),
      [=](OpRun& run) {
        const Paged paged = MakePaged(run, shape.queries(), 7);
        std::vector<int32_t> selected;
        std::vector<int32_t> counts;
        for (int64_t t = 0; t < shape.rows; ++t) {
          const int64_t visible = shape.queries().Position(t) + 1;
          const int64_t step =
              std::max<int64_t>(1, visible / std::max<int64_t>(1, shape.topk));
          int64_t count = 0;
          for (int64_t s = 0; s < shape.topk; ++s) {
            const int64_t position = s * step;
            selected.push_back(position < visible ? static_cast<int32_t>(position) : -1);
            count += position < visible ? 1 : 0;
          }
          counts.push_back(static_cast<int32_t>(count));
        }
        MlaAttentionArgs all;
        all.q_latent = run.Random({shape.rows, shape.heads, shape.dim});
        all.q_rope = run.Random({shape.rows, shape.heads, shape.rope_dim});
        all.rows = run.Random({paged.num_blocks, 7, shape.dim + shape.rope_dim});
        if (shape.packed) {
          all.rows =
              run.Packed(all.rows.rows, E4M3Row(shape.dim + shape.rope_dim, shape.dim));
        }
        all.index = paged.index;
        const bool select = shape.topk > 0;
        if (select) {
          all.selected = run.Ints({shape.rows, shape.topk}, selected);
          all.num_selected = run.Ints({shape.rows}, counts);
        }
        all.scale = 0.31;
        all.out = run.Output("out", {shape.rows, shape.heads, shape.dim});
        run.ForRows(shape.rows, [&](int64_t begin, int64_t count) {
          MlaAttentionArgs args = all;
          args.q_latent = all.q_latent.Rows(begin, count);
          args.q_rope = all.q_rope.Rows(begin, count);
          args.index = RowsOf(all.index, begin, count);
          if (select) {
            args.selected = all.selected.Rows(begin, count);
            args.num_selected = all.num_selected.Rows(begin, count);
          }
          args.out = all.out.Rows(begin, count);
          run.backend().MlaAttention(run.stream(), args);
        });
      }};
}

ParityCase StorePagedCase(int64_t rows, int64_t width) {
  return {fmt::format("StorePaged_{}x{}", rows, width), [=](OpRun& run) {
            const TensorView x = run.Random({rows, width});
            const TensorView cache = run.Random({4, 5, width});
            std::vector<int32_t> slots;
            for (int64_t t = 0; t < rows; ++t) {
              slots.push_back(t % 3 == 1 ? -1 : static_cast<int32_t>((t * 7 + 3) % 20));
            }
            const TensorView slot_view = run.Ints({rows}, slots);
            run.AlsoOutput("cache", cache);
            run.ForRows(rows, [&](int64_t begin, int64_t count) {
              run.backend().StorePaged(run.stream(), x.Rows(begin, count),
                                       slot_view.Rows(begin, count), cache);
            });
          }};
}

// The four ops of one sublayer's residual mix, and the head.
ParityCase HyperCase(int64_t rows, int64_t m, int64_t d, int64_t iterations) {
  return {fmt::format("Hyper_{}x{}x{}_iters{}", rows, m, d, iterations), [=](OpRun& run) {
            const TensorView x = run.Random({rows, d});
            const TensorView expanded = run.OutputDense("expanded", {rows, m, d});
            HyperCoefficientsArgs all;
            all.streams = run.RandomDense({rows, m, d});
            all.fn = run.Weight(WeightKind::kF32, m * (m + 2), m * d);
            all.base = run.Floats(m * (m + 2), -1, 1);
            all.scale = run.Floats(3, 0.2F, 1.5F);
            all.norm_eps = 1e-6;
            all.eps = 1e-6;
            all.sinkhorn_iters = iterations;
            all.pre = run.Output("pre", {rows, m});
            all.post = run.Output("post", {rows, m});
            all.mix = run.OutputDense("mix", {rows, m, m});
            const TensorView collapsed = run.Output("collapsed", {rows, d});
            const TensorView head = run.Output("head", {rows, d});
            run.AlsoOutput("streams", all.streams);
            run.ForRows(rows, [&](int64_t begin, int64_t count) {
              HyperCoefficientsArgs args = all;
              args.streams = all.streams.Rows(begin, count);
              args.pre = all.pre.Rows(begin, count);
              args.post = all.post.Rows(begin, count);
              args.mix = all.mix.Rows(begin, count);
              KernelBackend& backend = run.backend();
              backend.ExpandStreams(run.stream(), x.Rows(begin, count),
                                    expanded.Rows(begin, count));
              backend.HyperCoefficients(run.stream(), args);
              backend.HyperCollapse(run.stream(), args.streams, args.pre,
                                    collapsed.Rows(begin, count));
              backend.HyperExpand(run.stream(), x.Rows(begin, count), args.post, args.mix,
                                  args.streams);
              HyperCoefficientsArgs head_args = args;
              head_args.fn = all.fn.RowSlice(0, m);
              backend.HyperHead(run.stream(), head_args, head.Rows(begin, count));
            });
          }};
}

// Rising ones from `first` on, then those of padding rows.
TensorView Positions(OpRun& run, int64_t rows, int64_t first, int64_t padding) {
  const QueryRows queries = {rows, first, 1, padding};
  std::vector<int32_t> positions;
  for (int64_t t = 0; t < rows; ++t) {
    positions.push_back(static_cast<int32_t>(queries.Position(t)));
  }
  return run.Ints({rows}, positions);
}

struct RouterShape {
  int64_t rows;
  int64_t d;
  int64_t experts;
  int64_t k;
  int64_t groups;
  int64_t top_groups;
  bool normalize;
  RouterScore score = RouterScore::kSigmoid;
  bool fixed = false;
  int64_t padding = -1;  // rows at the end; -1: the op is not told of positions
};

// Experts of random tokens from a table of 40, by LookupExperts.
TensorView LookUp(OpRun& run, int64_t rows, int64_t k, int64_t experts) {
  constexpr int64_t kTokens = 40;
  const int64_t* table = run.Integers(kTokens * k, experts);
  std::vector<int32_t> tokens;
  for (int64_t t = 0; t < rows; ++t) {
    tokens.push_back(static_cast<int32_t>(run.Integer(kTokens)));
  }
  const TensorView token_ids = run.Ints({rows}, tokens);
  const TensorView ids = run.IntOutput("looked_up", {rows, k});
  run.ForRows(rows, [&](int64_t begin, int64_t count) {
    run.backend().LookupExperts(run.stream(), table, token_ids.Rows(begin, count),
                                ids.Rows(begin, count));
  });
  return ids;
}

ParityCase RouterCase(RouterShape shape) {
  return {fmt::format("Route_{}x{}_{}of{}_groups{}of{}{}{}{}_pad{}", shape.rows, shape.d,
                      shape.k, shape.experts, shape.top_groups, shape.groups,
                      shape.normalize ? "_normalized" : "",
                      shape.score == RouterScore::kSqrtSoftplus ? "_softplus" : "",
                      shape.fixed ? "_fixed" : "", shape.padding),
          [=](OpRun& run) {
            RouterArgs all;
            all.x = run.Random({shape.rows, shape.d});
            all.gate = run.Weight(WeightKind::kBf16, shape.experts, shape.d);
            all.score = shape.score;
            if (shape.fixed) {
              all.fixed_ids = LookUp(run, shape.rows, shape.k, shape.experts);
            } else {
              all.bias = run.Floats(shape.experts, -0.2F, 0.2F);
            }
            all.num_groups = shape.groups;
            all.top_groups = shape.top_groups;
            all.normalize = shape.normalize;
            all.scaling = 2.5;
            if (shape.padding >= 0) {
              all.positions = Positions(run, shape.rows, 7, shape.padding);
            }
            all.expert_ids = run.IntOutput("expert_ids", {shape.rows, shape.k});
            all.weights = run.Output("weights", {shape.rows, shape.k});
            run.ForRows(shape.rows, [&](int64_t begin, int64_t count) {
              RouterArgs args = all;
              args.x = all.x.Rows(begin, count);
              if (shape.fixed) {
                args.fixed_ids = all.fixed_ids.Rows(begin, count);
              }
              if (shape.padding >= 0) {
                args.positions = all.positions.Rows(begin, count);
              }
              args.expert_ids = all.expert_ids.Rows(begin, count);
              args.weights = all.weights.Rows(begin, count);
              run.backend().Route(run.stream(), args);
            });
          }};
}

// `items` rows spread over the experts, some of which get none; then combined two by two.
// `limited`: with a limit, weights, and room for more items than there are; and every
// fifth slot is empty.
ParityCase ExpertsCase(WeightKind kind, int64_t experts, int64_t items, int64_t d,
                       int64_t m, bool limited = false) {
  return {fmt::format("GroupedExperts_{}_{}experts_{}items_{}x{}{}", WeightKindName(kind),
                      experts, items, d, m, limited ? "_limited" : ""),
          [=](OpRun& run) {
            std::vector<ExpertWeights> weights;
            std::vector<int32_t> offsets = {0};
            std::vector<int32_t> rows;
            for (int64_t e = 0; e < experts; ++e) {
              weights.push_back({run.Weight(kind, m, d), run.Weight(kind, m, d),
                                 run.Weight(kind, d, m)});
              const int64_t left = items - offsets.back();
              const int64_t count =
                  e + 1 == experts ? left : (e % 3 == 1 ? 0 : run.Integer(left + 1));
              offsets.push_back(static_cast<int32_t>(offsets.back() + count));
            }
            for (int64_t i = 0; i < items; ++i) {
              rows.push_back(static_cast<int32_t>(run.Integer(5)));
            }
            const int64_t bound = limited ? items + 3 : items;
            rows.resize(static_cast<size_t>(bound), -1);
            GroupedExpertsArgs args;
            args.x = run.Random({5, d});
            args.row_of_item = run.Ints({bound}, rows);
            args.item_offsets = run.Ints({experts + 1}, offsets);
            args.experts = weights;
            if (limited) {
              args.swiglu_limit = 0.25;
              args.item_weights = run.Random({bound});
            }
            // Apart: what an op leaves would count as the largest value of the outputs.
            args.out = run.Random({bound, d});
            run.AlsoOutput("out", args.out.Rows(0, items));
            run.AlsoOutput("left", args.out.Rows(items, bound - items));
            run.backend().GroupedExperts(run.stream(), args);

            const int64_t tokens = items / 2;
            std::vector<int32_t> slots;
            for (int64_t i = 0; i < 2 * tokens; ++i) {
              const bool empty = limited && i % 5 == 3;
              slots.push_back(empty ? -1 : static_cast<int32_t>(items - 1 - i));
            }
            const TensorView slot_view = run.Ints({tokens, 2}, slots);
            const TensorView mix = run.Random({tokens, 2});
            const TensorView combined = run.Output("combined", {tokens, d});
            run.ForRows(tokens, [&](int64_t begin, int64_t count) {
              run.backend().CombineExperts(
                  run.stream(), args.out, slot_view.Rows(begin, count),
                  mix.Rows(begin, count), combined.Rows(begin, count));
            });
          }};
}

ParityCase EngramRowsCase(DType format, int64_t rows, int64_t columns, int64_t width) {
  return {fmt::format("DecodeEngramRows_{}_{}x{}x{}", model::DTypeName(format), rows,
                      columns, width),
          [=](OpRun& run) {
            const bool packed = format == DType::kF8E4M3;
            const int64_t row_bytes = packed ? width + width / 32 : 2 * width;
            std::vector<uint8_t> bytes;
            for (int64_t i = 0; i < rows * columns * row_bytes; ++i) {
              const int64_t at = i % row_bytes;
              if (packed && at >= width) {
                bytes.push_back(static_cast<uint8_t>(120 + run.Integer(10)));
              } else if (packed) {
                bytes.push_back(static_cast<uint8_t>(run.Integer(127)));
              } else {  // small positive and negative bf16 values
                bytes.push_back(static_cast<uint8_t>(
                    at % 2 == 0 ? run.Integer(256) : 0x3e + 128 * run.Integer(2)));
              }
            }
            const TensorView in = run.Bytes({rows, columns * row_bytes}, bytes);
            const TensorView out = run.Output("out", {rows, columns * width});
            run.ForRows(rows, [&](int64_t begin, int64_t count) {
              run.backend().DecodeEngramRows(run.stream(), in.Rows(begin, count), format,
                                             width, out.Rows(begin, count));
            });
          }};
}

ParityCase EngramGateCase(EngramGateSign sign, int64_t rows, int64_t m, int64_t d) {
  const bool demo = sign == EngramGateSign::kSign;
  return {fmt::format("EngramGate_{}_{}x{}x{}", demo ? "demo" : "v41", rows, m, d),
          [=](OpRun& run) {
            EngramGateArgs all;
            all.streams = run.Random({rows, m, d});
            all.kv = run.Random({rows, (m + 1) * d});
            all.q_weight = run.Weight(WeightKind::kBf16, m, d);
            all.k_weight = run.Weight(WeightKind::kBf16, m, d);
            all.eps = 1e-6;
            all.sign = sign;
            all.gate = run.Output("gate", {rows, m});
            run.AlsoOutput("streams", all.streams);
            if (demo) {
              all.gated = run.Output("gated", {rows, m, d});
            }
            run.ForRows(rows, [&](int64_t begin, int64_t count) {
              EngramGateArgs args = all;
              args.streams = all.streams.Rows(begin, count);
              args.kv = all.kv.Rows(begin, count);
              args.gate = all.gate.Rows(begin, count);
              if (demo) {
                args.gated = all.gated.Rows(begin, count);
              }
              run.backend().EngramGate(run.stream(), args);
            });
          }};
}

// Consecutive rows of one sequence that look back at each other and at rows from before
// the call.
ParityCase EngramConvCase(int64_t rows, int64_t m, int64_t d, int64_t first,
                          int64_t padding = 0) {
  return {fmt::format("EngramConv_{}x{}x{}_from{}_padding{}", rows, m, d, first, padding),
          [=](OpRun& run) {
            EngramConvArgs all;
            all.gated = run.Random({rows, m, d});
            all.streams = run.Random({rows, m, d});
            all.kernel = run.Weight(WeightKind::kBf16, m * d, 4);
            all.norm = run.Weight(WeightKind::kBf16, m, d);
            all.dilation = 4;
            all.cache = run.Random({9, 5, m * d});
            all.index.block_tables = run.Ints({1, 9}, {3, 0, 8, 1, 5, 2, 7, 6, 4});
            all.index.sequence_of_row =
                run.Ints({rows}, std::vector<int32_t>(static_cast<size_t>(rows), 0));
            all.index.positions = Positions(run, rows, first, padding);
            all.index.block_size = 5;
            run.AlsoOutput("streams", all.streams);
            run.AlsoOutput("cache", all.cache);
            run.ForRows(rows, [&](int64_t begin, int64_t count) {
              EngramConvArgs args = all;
              args.gated = all.gated.Rows(begin, count);
              args.streams = all.streams.Rows(begin, count);
              args.index = RowsOf(all.index, begin, count);
              run.backend().EngramConv(run.stream(), args);
            });
          }};
}

}  // namespace

std::vector<ParityCase> AttentionCases() {
  std::vector<ParityCase> cases;
  for (const AttentionShape& shape :
       {AttentionShape{0, 2, 8, 4, 3, 4}, AttentionShape{1, 1, 1, 1, 0, 1},
        AttentionShape{1, 4, 32, 16, 40, 16}, AttentionShape{5, 3, 17, 6, 29, 11},
        AttentionShape{3, 7, 70, 10, 5, 128}, AttentionShape{2, 8, 64, 16, 211, 65},
        AttentionShape{1, 5, 48, 8, 9001, 33}, AttentionShape{5, 9, 50, 6, 29, 11, true},
        AttentionShape{1, 70, 48, 8, 9001, 33, true},
        AttentionShape{5, 3, 17, 6, 29, 11, false, 3}}) {
    cases.push_back(IndexerCase(shape));
    cases.push_back(AttentionCase(shape));
  }
  for (const AttentionShape& shape :
       {AttentionShape{0, 2, 8, 4, 3, 0}, AttentionShape{1, 1, 1, 1, 0, 0},
        AttentionShape{5, 3, 17, 6, 29, 0}, AttentionShape{3, 5, 40, 10, 4093, 0},
        AttentionShape{1, 4, 33, 8, 12400, 0},
        AttentionShape{3, 37, 40, 10, 4093, 0, true},
        AttentionShape{1, 4, 33, 8, 12400, 0, true},
        AttentionShape{4, 3, 17, 6, 29, 0, false, 2},
        AttentionShape{2, 5, 40, 10, 6, 0, true, 1}}) {
    cases.push_back(AttentionCase(shape));
  }
  cases.push_back(StorePagedCase(0, 3));
  cases.push_back(StorePagedCase(1, 2));
  cases.push_back(StorePagedCase(7, 19));
  return cases;
}

std::vector<ParityCase> HyperCases() {
  return {HyperCase(0, 4, 16, 20), HyperCase(1, 1, 1, 1), HyperCase(3, 4, 192, 20),
          HyperCase(5, 2, 37, 3), HyperCase(2, 8, 31, 5)};
}

std::vector<ParityCase> MoeCases() {
  std::vector<ParityCase> cases = {RouterCase({0, 16, 8, 2, 1, 1, true}),
                                   RouterCase({1, 1, 1, 1, 1, 1, true}),
                                   RouterCase({5, 192, 256, 16, 1, 1, true}),
                                   RouterCase({7, 33, 37, 5, 1, 1, false}),
                                   RouterCase({4, 61, 64, 8, 8, 4, true}),
                                   RouterCase({300, 19, 250, 3, 5, 2, true})};
  for (const bool fixed : {false, true}) {
    const auto softplus = RouterScore::kSqrtSoftplus;
    cases.push_back(RouterCase({0, 16, 8, 2, 1, 1, true, softplus, fixed}));
    cases.push_back(RouterCase({6, 67, 37, 5, 1, 1, true, softplus, fixed}));
    // Logits from about -70 to 70: both sides of 20.
    cases.push_back(RouterCase({3, 5003, 64, 6, 1, 1, false, softplus, fixed}));
  }
  cases.push_back(RouterCase({3, 33, 17, 4, 1, 1, true, RouterScore::kSigmoid, true}));
  for (const bool fixed : {false, true}) {
    for (const int64_t padding : {0, 2, 5}) {
      cases.push_back(
          RouterCase({5, 33, 18, 4, 3, 2, true, RouterScore::kSigmoid, fixed, padding}));
    }
  }
  for (const WeightKind kind : kAllWeightKinds) {
    cases.push_back(ExpertsCase(kind, 1, 1, 3, 2));
    cases.push_back(ExpertsCase(kind, 7, 40, 61, 23));
    cases.push_back(ExpertsCase(kind, 4, 0, 16, 16));
    cases.push_back(ExpertsCase(kind, 6, 12, 192, 32));
    cases.push_back(ExpertsCase(kind, 5, 23, 48, 37, true));
  }
  cases.push_back(ExpertsCase(WeightKind::kBf16, 2, 19, 9, 4001));
  cases.push_back(ExpertsCase(WeightKind::kBf16, 2, 21, 9, 4001, true));
  return cases;
}

std::vector<ParityCase> EngramCases() {
  return {EngramRowsCase(DType::kF8E4M3, 3, 5, 32),
          EngramRowsCase(DType::kF8E4M3, 1, 2, 96),
          EngramRowsCase(DType::kBF16, 2, 3, 13),
          EngramRowsCase(DType::kBF16, 0, 3, 16),
          EngramGateCase(EngramGateSign::kCopysign, 4, 4, 48),
          EngramGateCase(EngramGateSign::kCopysign, 0, 4, 16),
          EngramGateCase(EngramGateSign::kSign, 3, 2, 67),
          EngramConvCase(6, 4, 29, 0),
          EngramConvCase(1, 1, 1, 2),
          EngramConvCase(5, 2, 300, 33),
          EngramConvCase(6, 3, 37, 2, 3),
          EngramConvCase(2, 2, 16, 0, 2),
          EngramConvCase(0, 2, 8, 0)};
}

}  // namespace tessera::parity
