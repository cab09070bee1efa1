// Parity rows of linear algebra and of the ops that work row by row.
#include <numeric>

#include "fmt/format.h"

#include "tests/parity/op_run.h"

namespace tessera::parity {
namespace {

using kernels::Fp4Scale;
using kernels::KSplit;
using kernels::RopePairing;

struct LinearShape {
  int64_t rows;
  int64_t inputs;
  int64_t outputs;
};

// Ones, primes, non-multiples of 16 and of the register blocks, no rows at all, and a
// panel that does not fit scratch at four rows.
constexpr LinearShape kLinearShapes[] = {
    {0, 32, 8},  {1, 1, 1},    {1, 16, 4},    {3, 17, 5},    {5, 192, 37},
    {9, 97, 13}, {2, 255, 66}, {13, 31, 101}, {1, 20011, 3}, {33, 640, 18}};

std::vector<int32_t> Rising(int64_t count, int32_t first) {
  std::vector<int32_t> values(static_cast<size_t>(count));
  std::iota(values.begin(), values.end(), first);
  return values;
}

ParityCase LinearCase(WeightKind kind, LinearShape shape, KSplit split) {
  const std::string name = fmt::format(
      "Linear_{}_{}x{}x{}_leaves{}to{}", WeightKindName(kind), shape.rows, shape.inputs,
      shape.outputs, split.first_leaf, split.first_leaf + split.num_leaves);
  return {name, [=](OpRun& run) {
            const TensorView x = run.Random({shape.rows, shape.inputs});
            const WeightView w = run.Weight(kind, shape.outputs, shape.inputs);
            const TensorView out = run.Output("out", {shape.rows, shape.outputs});
            run.ForRows(shape.rows, [&](int64_t begin, int64_t count) {
              run.backend().Linear(run.stream(), x.Rows(begin, count), w, split,
                                   out.Rows(begin, count));
            });
          }};
}

// What a rank that holds `leaves` leaves from `first` on is given.
ParityCase SplitCase(WeightKind kind, int64_t total, int first, int leaves) {
  const int64_t inputs =
      KSplit::LeafBegin(total, first + leaves) - KSplit::LeafBegin(total, first);
  return LinearCase(kind, {4, inputs, 11}, {total, first, leaves});
}

ParityCase HeadLinearCase(WeightKind kind, bool transposed, int64_t rows, int64_t heads,
                          int64_t head_rows, int64_t begin, int64_t n, int64_t cols) {
  const std::string name = fmt::format(
      "HeadLinear{}_{}_{}x{}_rows{}to{}_cols{}", transposed ? "Transposed" : "",
      WeightKindName(kind), rows, heads, begin, begin + n, cols);
  return {
      name, [=](OpRun& run) {
        const TensorView x = run.Random({rows, heads, transposed ? n : cols});
        const WeightView w = run.Weight(kind, heads * head_rows, cols);
        const TensorView out = run.Output("out", {rows, heads, transposed ? cols : n});
        run.ForRows(rows, [&](int64_t at, int64_t count) {
          const TensorView in = x.Rows(at, count);
          const TensorView to = out.Rows(at, count);
          if (transposed) {
            run.backend().HeadLinearTransposed(run.stream(), in, w, head_rows, begin, to);
          } else {
            run.backend().HeadLinear(run.stream(), in, w, head_rows, begin, to);
          }
        });
      }};
}

ParityCase NormCase(int64_t rows, int64_t streams, int64_t dim, bool in_place,
                    bool weighted = true) {
  return {fmt::format("RmsNorm_{}x{}x{}{}{}", rows, streams, dim,
                      in_place ? "_inplace" : "", weighted ? "" : "_ones"),
          [=](OpRun& run) {
            const std::vector<int64_t> shape =
                streams == 0 ? std::vector<int64_t>{rows, dim}
                             : std::vector<int64_t>{rows, streams, dim};
            const TensorView x = run.Random(shape);
            const WeightView w =
                weighted ? run.Weight(WeightKind::kBf16, 1, dim) : WeightView{};
            const TensorView out = in_place ? x : run.Output("out", shape);
            if (in_place) {
              run.AlsoOutput("x", x);
            }
            run.ForRows(rows, [&](int64_t begin, int64_t count) {
              run.backend().RmsNorm(run.stream(), x.Rows(begin, count), w, 1e-6,
                                    out.Rows(begin, count));
            });
          }};
}

ParityCase LayerNormCase(int64_t rows, int64_t dim) {
  return {fmt::format("LayerNorm_{}x{}", rows, dim), [=](OpRun& run) {
            const TensorView x = run.Random({rows, dim});
            const float* weight = run.Floats(dim, -1, 1);
            const float* bias = run.Floats(dim, -1, 1);
            const TensorView out = run.Output("out", {rows, dim});
            run.ForRows(rows, [&](int64_t begin, int64_t count) {
              run.backend().LayerNorm(run.stream(), x.Rows(begin, count), weight, bias,
                                      1e-6, out.Rows(begin, count));
            });
          }};
}

ParityCase RopeCase(RopePairing pairing, int64_t rows, int64_t heads, int64_t dim,
                    int64_t pairs, int32_t first) {
  return {fmt::format("Rope_{}_{}x{}x{}_pairs{}_from{}",
                      pairing == RopePairing::kInterleaved ? "interleaved" : "half", rows,
                      heads, dim, pairs, first),
          [=](OpRun& run) {
            const TensorView x = run.Random({rows, heads, dim});
            const TensorView positions = run.Ints({rows}, Rising(rows, first));
            const float* freq = run.Floats(pairs, 0.0001F, 1.0F);
            run.AlsoOutput("x", x);
            run.ForRows(rows, [&](int64_t begin, int64_t count) {
              run.backend().Rope(run.stream(), x.Rows(begin, count),
                                 positions.Rows(begin, count),
                                 {freq, static_cast<size_t>(pairs)}, pairing);
            });
          }};
}

// Ops with one or two activations of one shape.
enum class Elementwise {
  kHadamard,
  kFakeQuantizeE4M3,
  kFakeQuantizeFp4E8M0,
  kFakeQuantizeFp4E4M3,
  kScale,
  kSiluMul,
  kSiluMulLimited,
  kAdd,
  kCopy
};

ParityCase ElementwiseCase(Elementwise op, int64_t rows, int64_t dim) {
  static constexpr const char* kNames[] = {
      "Hadamard", "FakeQuantizeE4M3", "FakeQuantizeFp4E8M0", "FakeQuantizeFp4E4M3",
      "Scale",    "SiluMul",          "SiluMulLimited",      "Add",
      "Copy"};
  return {fmt::format("{}_{}x{}", kNames[static_cast<int>(op)], rows, dim),
          [=](OpRun& run) {
            const TensorView x = run.Random({rows, dim});
            const TensorView y = run.Random({rows, dim});
            const TensorView out = run.Output("out", {rows, dim});
            run.AlsoOutput("x", x);
            run.AlsoOutput("y", y);
            run.ForRows(rows, [&](int64_t begin, int64_t count) {
              const TensorView a = x.Rows(begin, count);
              const TensorView b = y.Rows(begin, count);
              const TensorView to = out.Rows(begin, count);
              switch (op) {
                case Elementwise::kHadamard:
                  return run.backend().Hadamard(run.stream(), a);
                case Elementwise::kFakeQuantizeE4M3:
                  return run.backend().FakeQuantizeE4M3(run.stream(), a);
                case Elementwise::kFakeQuantizeFp4E8M0:
                  return run.backend().FakeQuantizeFp4(run.stream(), a, Fp4Scale::kE8M0);
                case Elementwise::kFakeQuantizeFp4E4M3:
                  return run.backend().FakeQuantizeFp4(run.stream(), a, Fp4Scale::kE4M3);
                case Elementwise::kScale:
                  return run.backend().Scale(run.stream(), a, 0.37);
                case Elementwise::kSiluMul:
                  run.backend().Scale(run.stream(), a, 60.0);
                  return run.backend().SiluMul(run.stream(), a, b, 0, to);
                case Elementwise::kSiluMulLimited:
                  run.backend().Scale(run.stream(), a, 3.0);
                  return run.backend().SiluMul(run.stream(), a, b, 0.75, to);
                case Elementwise::kAdd:
                  return run.backend().Add(run.stream(), a, b);
                case Elementwise::kCopy:
                  return run.backend().Copy(run.stream(), a, to);
              }
            });
          }};
}

// Groups of `group` values of a part of each head's row, beginning at `from`; and the
// rotation of the rest, backwards.
ParityCase QuantizeSliceCase(int64_t rows, int64_t heads, int64_t dim, int64_t from,
                             int64_t count, int64_t group) {
  return {fmt::format("QuantizeSlice_{}x{}x{}_{}of{}by{}", rows, heads, dim, from, count,
                      group),
          [=](OpRun& run) {
            const TensorView e4m3 = run.Random({rows, heads, dim});
            const TensorView fp4 = run.Random({rows, heads, dim});
            const int64_t pairs = (dim - count) / 2;
            const float* freq = run.Floats(pairs, -1.0F, -0.0001F);
            const TensorView positions = run.Ints({rows}, Rising(rows, 4711));
            run.AlsoOutput("e4m3", e4m3);
            run.AlsoOutput("fp4", fp4);
            run.ForRows(rows, [&](int64_t begin, int64_t n) {
              const TensorView a = e4m3.Rows(begin, n);
              const TensorView b = fp4.Rows(begin, n);
              run.backend().FakeQuantizeE4M3(run.stream(),
                                             a.Slice(2, from, count).SplitLast(group));
              run.backend().FakeQuantizeFp4(run.stream(),
                                            b.Slice(2, from, count).SplitLast(group),
                                            Fp4Scale::kE4M3);
              const int64_t rest = from == 0 ? count : 0;
              run.backend().Rope(
                  run.stream(), a.Slice(2, rest, dim - count), positions.Rows(begin, n),
                  {freq, static_cast<size_t>(pairs)}, RopePairing::kInterleaved);
            });
          }};
}

// The last `padding` rows stand at position -1.
ParityCase PositionBiasCase(int64_t rows, int64_t ratio, int64_t channels,
                            int64_t padding = 0) {
  return {fmt::format("AddPositionBias_{}x{}_ratio{}_padding{}", rows, channels, ratio,
                      padding),
          [=](OpRun& run) {
            const TensorView x = run.Random({rows, channels});
            const WeightView bias = run.Weight(WeightKind::kF32, ratio, channels);
            std::vector<int32_t> values = Rising(rows - padding, 1021);
            values.resize(static_cast<size_t>(rows), -1);
            const TensorView positions = run.Ints({rows}, values);
            run.AlsoOutput("x", x);
            run.ForRows(rows, [&](int64_t begin, int64_t count) {
              run.backend().AddPositionBias(run.stream(), x.Rows(begin, count), bias,
                                            positions.Rows(begin, count));
            });
          }};
}

ParityCase EmbeddingCase(WeightKind kind, int64_t rows, int64_t dim) {
  return {fmt::format("Embedding_{}_{}x{}", WeightKindName(kind), rows, dim),
          [=](OpRun& run) {
            const WeightView table = run.Weight(kind, 50, dim);
            std::vector<int32_t> ids;
            for (int64_t t = 0; t < rows; ++t) {
              ids.push_back(static_cast<int32_t>(run.Integer(50)));
            }
            const TensorView id_view = run.Ints({rows}, ids);
            const TensorView out = run.Output("out", {rows, dim});
            run.ForRows(rows, [&](int64_t begin, int64_t count) {
              run.backend().Embedding(run.stream(), table, id_view.Rows(begin, count),
                                      out.Rows(begin, count));
            });
          }};
}

ParityCase GatherCase(int64_t rows, int64_t streams, int64_t dim) {
  return {fmt::format("GatherRows_{}x{}x{}", rows, streams, dim), [=](OpRun& run) {
            const TensorView x = run.Random({7, streams, dim});
            std::vector<int32_t> from;
            for (int64_t i = 0; i < rows; ++i) {
              const int64_t row = run.Integer(7);
              from.push_back(i % 4 == 3 ? -1 : static_cast<int32_t>(row));
            }
            const TensorView index = run.Ints({rows}, from);
            const TensorView out = run.Output("out", {rows, streams, dim});
            run.ForRows(rows, [&](int64_t begin, int64_t count) {
              run.backend().GatherRows(run.stream(), x, index.Rows(begin, count),
                                       out.Rows(begin, count));
            });
          }};
}

}  // namespace

std::vector<ParityCase> LinearCases() {
  std::vector<ParityCase> cases;
  for (const WeightKind kind : kAllWeightKinds) {
    for (const LinearShape& shape : kLinearShapes) {
      cases.push_back(LinearCase(kind, shape, KSplit::Whole()));
    }
    for (const int64_t total : {5, 256, 1001}) {
      cases.push_back(SplitCase(kind, total, 0, 8));
      cases.push_back(SplitCase(kind, total, 4, 4));
      cases.push_back(SplitCase(kind, total, 3, 1));
    }
    for (const bool transposed : {false, true}) {
      cases.push_back(HeadLinearCase(kind, transposed, 3, 2, 9, 4, 5, 33));
      cases.push_back(HeadLinearCase(kind, transposed, 1, 8, 64, 0, 32, 64));
      cases.push_back(HeadLinearCase(kind, transposed, 0, 2, 4, 1, 3, 16));
    }
    cases.push_back(HeadLinearCase(kind, true, 2, 1, 300, 7, 290, 519));
  }
  for (const WeightKind kind : kPublishedBlocks) {
    cases.push_back(LinearCase(kind, {3, 517, 141}, KSplit::Whole()));
    cases.push_back(LinearCase(kind, {9, 256, 33}, KSplit::Whole()));
    cases.push_back(LinearCase(kind, {7, 85, 14}, KSplit::Whole()));
    cases.push_back(LinearCase(kind, {1, 7, 3}, KSplit::Whole()));
    for (const int64_t total : {320, 1000, 2048}) {  // leaves cut blocks, or do not
      cases.push_back(SplitCase(kind, total, 0, 8));
      cases.push_back(SplitCase(kind, total, 2, 2));
    }
    cases.push_back(HeadLinearCase(kind, false, 5, 2, 130, 0, 130, 384));
    cases.push_back(HeadLinearCase(kind, false, 1, 1, 301, 0, 301, 1030));
    cases.push_back(HeadLinearCase(kind, true, 2, 2, 140, 5, 131, 257));
  }
  return cases;
}

std::vector<ParityCase> RowCases() {
  std::vector<ParityCase> cases = {NormCase(0, 0, 8, false),
                                   NormCase(1, 0, 1, false),
                                   NormCase(5, 0, 193, false),
                                   NormCase(3, 4, 48, false),
                                   NormCase(3, 2, 17, true),
                                   NormCase(0, 3, 8, true, false),
                                   NormCase(5, 3, 33, true, false),
                                   NormCase(2, 0, 192, false, false),
                                   PositionBiasCase(0, 4, 8),
                                   PositionBiasCase(1, 1, 1),
                                   PositionBiasCase(9, 4, 67),
                                   PositionBiasCase(131, 128, 48),
                                   PositionBiasCase(5, 4, 67, 2),
                                   QuantizeSliceCase(0, 1, 24, 0, 16, 8),
                                   QuantizeSliceCase(3, 1, 64, 0, 48, 16),
                                   QuantizeSliceCase(2, 3, 70, 0, 60, 5),
                                   QuantizeSliceCase(5, 2, 44, 8, 36, 18),
                                   LayerNormCase(0, 4),
                                   LayerNormCase(1, 1),
                                   LayerNormCase(4, 32),
                                   LayerNormCase(3, 131),
                                   EmbeddingCase(WeightKind::kBf16, 5, 67),
                                   EmbeddingCase(WeightKind::kF8E8M0, 3, 192),
                                   EmbeddingCase(WeightKind::kBf16, 0, 16),
                                   GatherCase(5, 3, 19),
                                   GatherCase(0, 1, 4)};
  for (const RopePairing pairing : {RopePairing::kInterleaved, RopePairing::kHalfSplit}) {
    cases.push_back(RopeCase(pairing, 5, 3, 16, 8, 0));
    cases.push_back(RopeCase(pairing, 3, 1, 33, 7, 1000003));
    cases.push_back(RopeCase(pairing, 0, 2, 8, 4, 0));
    cases.push_back(RopeCase(pairing, 3, 2, 9, 4, -1));
  }
  for (const Elementwise op :
       {Elementwise::kFakeQuantizeE4M3, Elementwise::kFakeQuantizeFp4E8M0,
        Elementwise::kFakeQuantizeFp4E4M3, Elementwise::kScale, Elementwise::kSiluMul,
        Elementwise::kSiluMulLimited, Elementwise::kAdd, Elementwise::kCopy}) {
    cases.push_back(ElementwiseCase(op, 0, 5));
    cases.push_back(ElementwiseCase(op, 1, 1));
    cases.push_back(ElementwiseCase(op, 7, 211));
  }
  for (const int64_t size : {1, 2, 8, 16, 32, 64, 128}) {
    cases.push_back(ElementwiseCase(Elementwise::kHadamard, 3, size));
  }
  return cases;
}

}  // namespace tessera::parity
