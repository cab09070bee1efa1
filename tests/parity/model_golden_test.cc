// Small models of every family against recorded outputs of their reference (tests/data):
// every tensor of every prompt and greedy continuations, per backend and activation type;
// and the same bits however a group and its steps are cut. On the simulated GPU of the
// cuda backend short prompts and continuations; all of them with TESSERA_LONG_TESTS=1.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iterator>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "cli/loaded_model.h"
#include "cli/ranks/rank_assembly.h"
#include "fmt/format.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"

#include "common/clock.h"
#include "kernels/kernel_backend.h"
#include "model/tensors/checkpoint.h"
#include "worker/runner/trace_program.h"
#include "worker/runner/trace_recorder.h"

namespace tessera {
namespace {

using Tensors = std::map<std::string, worker::RecordedTensor>;

constexpr int64_t kMaxTokens = 192;
// Tokens of the prompts that the simulated GPU runs each time.
constexpr int kShortPrompt = 5;
// Of a float64 run against a reference that ran in float64; max|a-b| / max|b|.
constexpr double kFloat64Tolerance = 1e-5;

// A model and its recordings.
struct Recording {
  const char* name;
  const char* model;
  const char* folder;  // golden.safetensors, manifest.json
  bool ran_in_float64;
  int compared;  // tensors of prompts
};
constexpr Recording kRecordings[] = {
    {"demo", "models/demo", "tests/data/demo", false, 66},
    {"v3", "tests/data/v3", "tests/data/v3", true, 69},
    {"v3_bf16", "tests/data/v3_bf16", "tests/data/v3_bf16", true, 69},
    {"v32", "tests/data/v32", "tests/data/v32", true, 81},
    {"v4", "tests/data/v4", "tests/data/v4", true, 87},
    {"v4_0731", "tests/data/v4_0731", "tests/data/v4_0731", true, 110},
    {"v41", "tests/data/v41", "tests/data/v41", true, 146},
};

struct Arithmetic {
  const char* backend;
  model::DType dtype;
};
constexpr Arithmetic kArithmetics[] = {{"reference", model::DType::kF64},
                                       {"reference", model::DType::kF32},
                                       {"cpu", model::DType::kF32}};
constexpr Arithmetic kCuda = {"cuda", model::DType::kF32};

bool IsLong() { return std::getenv("TESSERA_LONG_TESTS") != nullptr; }

// The demo model's recording ran in float32 and fell on the other side of a router near
// tie here: in float64 the 16th and 17th expert of the draft layer at this position
// differ by 9e-9, less than float32 can tell. The row is left out; all other rows of the
// tensor are compared.
constexpr std::string_view kNearTieRecording = "demo";
constexpr std::string_view kNearTieTensor = "prompt33.mtp.all_logits";
constexpr size_t kNearTieRow = 3;

void DropRow(size_t row, size_t width, std::vector<double>& values) {
  const auto begin = values.begin() + static_cast<std::ptrdiff_t>(row * width);
  values.erase(begin, begin + static_cast<std::ptrdiff_t>(width));
}

// Indices of a prompt that is too short for all columns were recorded without the columns
// that hold -1 alone.
void WidenRows(int64_t width, worker::RecordedTensor& indices) {
  const auto recorded = static_cast<size_t>(indices.shape[1]);
  std::vector<std::byte> wide(
      static_cast<size_t>(indices.shape[0] * width) * sizeof(int32_t), std::byte{255});
  for (size_t row = 0; row < static_cast<size_t>(indices.shape[0]); ++row) {
    std::memcpy(wide.data() + row * static_cast<size_t>(width) * sizeof(int32_t),
                indices.data.data() + row * recorded * sizeof(int32_t),
                recorded * sizeof(int32_t));
  }
  indices.shape[1] = width;
  indices.data = std::move(wide);
}

double RelativeDifference(const std::vector<double>& a, const std::vector<double>& b) {
  double difference = 0;
  double largest = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    if (std::isnan(a[i])) {
      return INFINITY;
    }
    difference = std::max(difference, std::abs(a[i] - b[i]));
    largest = std::max(largest, std::abs(b[i]));
  }
  return difference / std::max(largest, 1e-30);
}

// KL divergence of softmax(b) from softmax(a), in nats.
double Divergence(const std::vector<double>& a, const std::vector<double>& b) {
  const auto log_sum = [](const std::vector<double>& x) {
    const double largest = *std::max_element(x.begin(), x.end());
    double sum = 0;
    for (const double value : x) {
      sum += std::exp(value - largest);
    }
    return largest + std::log(sum);
  };
  const double log_sum_a = log_sum(a);
  const double log_sum_b = log_sum(b);
  double divergence = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    divergence += std::exp(a[i] - log_sum_a) * ((a[i] - log_sum_a) - (b[i] - log_sum_b));
  }
  return divergence;
}

// A model, its recordings and a group of ranks that run it.
class GoldenRun {
 public:
  explicit GoldenRun(const Recording& recording) {
    auto model = cli::LoadModel(recording.model);
    EXPECT_TRUE(model.ok()) << model.status();
    auto golden = model::Checkpoint::OpenFile(std::string(recording.folder) +
                                              "/golden.safetensors");
    EXPECT_TRUE(golden.ok()) << golden.status();
    if (model.ok() && golden.ok()) {
      model_ = *std::move(model);
      golden_ = *std::move(golden);
      std::ifstream in(std::string(recording.folder) + "/manifest.json");
      manifest_ = nlohmann::json::parse(in);
    }
  }

  bool ok() const { return model_ != nullptr; }
  const model::Checkpoint& golden() const { return *golden_; }

  void StartGroup(const Arithmetic& arithmetic, const cli::GroupShape& shape) {
    const auto engram = cli::ResidentEngram(*model_, Clock::Real());
    ASSERT_TRUE(engram.ok()) << engram.status();
    cli::RankOptions options;
    options.backend = arithmetic.backend;
    options.dtype = arithmetic.dtype;
    options.num_threads = 2;
    options.comm.timeout = absl::Minutes(10);  // not about time: simulated ranks are slow
    options.runner.max_tokens = kMaxTokens;
    options.runner.block_size = model_->config.default_block_size();
    options.runner.num_blocks = 1024 / options.runner.block_size;
    options.runner.num_tail_blocks =
        model_->config.tail_tokens() > 0 ? options.runner.num_blocks : 0;
    ranks_.clear();
    auto ranks = cli::AssembleLocalGroup(*model_, shape, options, *engram, Clock::Real());
    ASSERT_TRUE(ranks.ok()) << ranks.status();
    ranks_ = *std::move(ranks);
    shape_ = shape;
  }

  worker::RecordedTensor Golden(const std::string& name) const {
    const auto tensor = golden_->Find(name);
    EXPECT_TRUE(tensor.ok()) << tensor.status();
    worker::RecordedTensor out;
    out.dtype = tensor->dtype;
    out.shape = tensor->shape;
    out.data.assign(tensor->data.begin(), tensor->data.end());
    return out;
  }

  std::vector<int32_t> GoldenIds(const std::string& name) const {
    std::vector<int32_t> ids;
    for (const double value : Golden(name).Values()) {
      ids.push_back(static_cast<int32_t>(value));
    }
    return ids;
  }

  // "1", "2", … of "prompt1.ids", or of "greedy5.ids".
  std::vector<std::string> Sizes(std::string_view kind) const {
    std::vector<std::string> sizes;
    for (const std::string& name : golden_->names()) {
      const size_t dot = name.find('.');
      if (name.starts_with(kind) && name.substr(dot) == ".ids") {
        sizes.push_back(name.substr(kind.size(), dot - kind.size()));
      }
    }
    return sizes;
  }

  const nlohmann::json& PromptNotes(const std::string& size) const {
    return manifest_.at("prompts").at(size);
  }

  // The whole group runs it; dp ranks beside the first idle along.
  std::vector<int32_t> Trace(const worker::TraceRequest& request, Tensors* tensors) {
    ++epoch_;
    worker::TraceRecorder recorder({});
    std::vector<int32_t> generated;
    std::vector<std::thread> threads;
    for (size_t rank = 0; rank < ranks_.size(); ++rank) {
      threads.emplace_back([&, rank] {
        worker::TraceRequest mine = request;
        mine.epoch = epoch_;
        mine.block_size = model_->config.default_block_size();
        mine.placement_version = 1;
        mine.idle = rank >= static_cast<size_t>(shape_.tp);
        const auto ids =
            worker::RunTrace(model_->config, mine, kMaxTokens, *ranks_[rank].runner,
                             rank == 0 && tensors != nullptr ? &recorder : nullptr);
        EXPECT_TRUE(ids.ok()) << ids.status();
        if (rank == 0 && ids.ok()) {
          generated = *ids;
        }
      });
    }
    for (std::thread& thread : threads) {
      thread.join();
    }
    if (tensors != nullptr) {
      *tensors = recorder.Finish(true);
    }
    return generated;
  }

 private:
  std::unique_ptr<cli::LoadedModel> model_;
  std::unique_ptr<model::Checkpoint> golden_;
  nlohmann::json manifest_;
  cli::GroupShape shape_;
  std::vector<cli::AssembledRank> ranks_;
  uint64_t epoch_ = 0;
};

struct GoldenCase {
  Recording recording;
  Arithmetic arithmetic;
};

void PrintTo(const GoldenCase& row, std::ostream* os) {
  *os << row.recording.name << " on " << row.arithmetic.backend << "/"
      << model::DTypeName(row.arithmetic.dtype);
}

std::vector<GoldenCase> AllCases() {
  std::vector<GoldenCase> cases;
  for (const Recording& recording : kRecordings) {
    for (const Arithmetic& arithmetic : kArithmetics) {
      cases.push_back({recording, arithmetic});
    }
    if (IsLong()) {
      cases.push_back({recording, kCuda});
    }
  }
  return cases;
}

// The demo alone in the short run: simulated threads take a minute for a family.
std::vector<GoldenCase> CudaCases() {
  std::vector<GoldenCase> cases;
  for (const Recording& recording : kRecordings) {
    const std::string_view name = recording.name;
    if (IsLong() || name == "demo") {
      cases.push_back({recording, kCuda});
    }
  }
  return cases;
}

std::string NameOf(const testing::TestParamInfo<GoldenCase>& test) {
  return fmt::format("{}_{}_{}", test.param.recording.name, test.param.arithmetic.backend,
                     model::DTypeName(test.param.arithmetic.dtype));
}

class ModelGolden : public ::testing::TestWithParam<GoldenCase> {
 protected:
  ModelGolden() : run_(GetParam().recording) {}
  void SetUp() override {
    ASSERT_TRUE(run_.ok());
    const std::string_view backend = GetParam().arithmetic.backend;
    const absl::Status status = kernels::CreateBackend({.name = backend}).status();
    if (backend == "cuda" && absl::IsNotFound(status)) {
      GTEST_SKIP() << "skipped: " << status.message();
    }
    run_.StartGroup(GetParam().arithmetic, {});
  }

  // True where rounding alone can tell nothing apart: recording and run are float64.
  bool is_exact() const {
    return GetParam().recording.ran_in_float64 &&
           GetParam().arithmetic.dtype == model::DType::kF64;
  }
  double ToleranceOf(const std::string& size) const {
    return is_exact() ? kFloat64Tolerance
                      : run_.PromptNotes(size).at("tolerance").get<double>();
  }
  // An index tensor that holds a near tie, which float32 may decide either way.
  bool IsUnstable(const std::string& size, const std::string& name) const {
    const auto& unstable = run_.PromptNotes(size).at("unstable_indices");
    return !is_exact() &&
           std::find(unstable.begin(), unstable.end(), name) != unstable.end();
  }

  // Compares one recorded tensor; returns the relative difference of floats.
  double Compare(const std::string& size, const std::string& full_name,
                 const std::string& name, const Tensors& traced) {
    worker::RecordedTensor expected = run_.Golden(full_name);
    const auto it = traced.find(name);
    if (name == "candidate_blocks" && it != traced.end()) {
      WidenRows(it->second.shape[1], expected);
    }
    if (it == traced.end() || it->second.shape != expected.shape) {
      ADD_FAILURE() << full_name
                    << (it == traced.end() ? " is missing"
                                           : " has another "
                                             "shape");
      return 0;
    }
    if (expected.dtype != model::DType::kF32) {
      if (!IsUnstable(size, name)) {
        EXPECT_EQ(it->second.Values(), expected.Values()) << full_name;
      }
      return 0;
    }
    std::vector<double> actual_values = it->second.Values();
    std::vector<double> expected_values = expected.Values();
    if (GetParam().recording.name == kNearTieRecording && full_name == kNearTieTensor) {
      const auto width = static_cast<size_t>(expected.shape[1]);
      DropRow(kNearTieRow, width, actual_values);
      DropRow(kNearTieRow, width, expected_values);
    }
    const double difference = RelativeDifference(actual_values, expected_values);
    EXPECT_LE(difference, ToleranceOf(size)) << full_name;
    return difference;
  }

  // Runs the prompt and compares all that was recorded of it.
  void ComparePrompt(const std::string& size, int* compared, double* worst) {
    const std::string prefix = fmt::format("prompt{}.", size);
    Tensors traced;
    run_.Trace({.ids = run_.GoldenIds(prefix + "ids")}, &traced);
    for (const std::string& full_name : run_.golden().names()) {
      if (!full_name.starts_with(prefix) || full_name == prefix + "ids") {
        continue;
      }
      const std::string name = full_name.substr(prefix.size());
      if (name == "bf16.last_logits") {
        // Serving numerics of another mode: the distribution must be close, not the
        // values.
        EXPECT_LT(Divergence(run_.Golden(full_name).Values(),
                             traced.at("last_logits").Values()),
                  0.02)
            << full_name;
        continue;
      }
      *worst = std::max(*worst, Compare(size, full_name, name, traced));
      ++*compared;
    }
  }

  GoldenRun run_;
};

TEST_P(ModelGolden, EveryTensorOfEveryPromptAgrees) {
  int compared = 0;
  double worst = 0;
  for (const std::string& size : run_.Sizes("prompt")) {
    ComparePrompt(size, &compared, &worst);
  }
  EXPECT_EQ(compared, GetParam().recording.compared);
  RecordProperty("largest_relative_difference", fmt::format("{:.3g}", worst));
  fmt::print("largest relative difference {:.3g} over {} tensors\n", worst, compared);
}

TEST_P(ModelGolden, GreedyContinuationsAreEqual) {
  const std::vector<std::string> sizes = run_.Sizes("greedy");
  EXPECT_EQ(sizes.size(), 3u);
  for (const std::string& size : sizes) {
    const std::string name = "greedy" + size;
    const std::vector<int32_t> expected = run_.GoldenIds(name + ".ids");
    EXPECT_EQ(run_.Trace({.ids = run_.GoldenIds(name + ".prompt"),
                          .drafts = false,
                          .greedy_tokens = static_cast<int64_t>(expected.size())},
                         nullptr),
              expected)
        << name;
  }
}

INSTANTIATE_TEST_SUITE_P(Recordings, ModelGolden, ::testing::ValuesIn(AllCases()),
                         NameOf);

// What of it every run of the tests has time for.
class CudaGolden : public ModelGolden {};

TEST_P(CudaGolden, ShortPromptsAgree) {
  int compared = 0;
  double worst = 0;
  for (const std::string& size : run_.Sizes("prompt")) {
    if (std::stoi(size) <= kShortPrompt) {
      ComparePrompt(size, &compared, &worst);
    }
  }
  EXPECT_GT(compared, 0);
}

TEST_P(CudaGolden, ContinuationsDoNotDependOnTheGroup) {
  const std::vector<std::string> sizes = run_.Sizes("prompt");
  const bool has_five = std::find(sizes.begin(), sizes.end(), "5") != sizes.end();
  const std::string size = has_five ? "5" : "7";
  const worker::TraceRequest request = {.ids = run_.GoldenIds("prompt" + size + ".ids"),
                                        .drafts = false,
                                        .greedy_tokens = IsLong() ? 32 : 4};
  Tensors expected;
  const std::vector<int32_t> tokens = run_.Trace(request, &expected);
  std::vector<cli::GroupShape> shapes = {{.tp = 2}};
  if (IsLong()) {
    shapes.insert(shapes.end(), {{.tp = 4}, {.dp = 2}, {.tp = 2, .dp = 2}});
  }
  for (const cli::GroupShape& shape : shapes) {
    SCOPED_TRACE(fmt::format("tp {} dp {}", shape.tp, shape.dp));
    run_.StartGroup(kCuda, shape);
    Tensors seen;
    EXPECT_EQ(run_.Trace(request, &seen), tokens);
    for (const auto& [name, tensor] : expected) {
      EXPECT_TRUE(seen.at(name).data == tensor.data) << name;
    }
  }
  run_.StartGroup({"cpu", model::DType::kF32}, {});
  EXPECT_EQ(run_.Trace(request, nullptr), tokens);
}

INSTANTIATE_TEST_SUITE_P(Recordings, CudaGolden, ::testing::ValuesIn(CudaCases()),
                         NameOf);

// Invariant 1 on each model: tests/integration/same_bits_test.cc has the demo model in
// full depth.
class ModelBits : public ::testing::TestWithParam<Recording> {
 protected:
  ModelBits() : run_(GetParam()) {}
  void SetUp() override { ASSERT_TRUE(run_.ok()); }

  // Past every window and top-k, and a continuation.
  Tensors TraceLongest(const cli::GroupShape& shape, int64_t chunk) {
    run_.StartGroup({"cpu", model::DType::kF32}, shape);
    Tensors tensors;
    const std::vector<int32_t> continuation = run_.Trace(
        {.ids = run_.GoldenIds("prompt331.ids"), .chunk = chunk, .greedy_tokens = 8},
        &tensors);
    EXPECT_EQ(continuation.size(), 8u);
    worker::RecordedTensor& ids = tensors["continuation"];
    ids.dtype = model::DType::kI32;
    const auto* bytes = reinterpret_cast<const std::byte*>(continuation.data());
    ids.data.assign(bytes, bytes + continuation.size() * sizeof(int32_t));
    return tensors;
  }

  static void ExpectSameBits(const Tensors& actual, const Tensors& expected) {
    ASSERT_EQ(actual.size(), expected.size());
    for (const auto& [name, tensor] : expected) {
      EXPECT_TRUE(actual.at(name).data == tensor.data) << name;
    }
  }

  GoldenRun run_;
};

TEST_P(ModelBits, DoNotDependOnTheGroup) {
  const Tensors expected = TraceLongest({}, kMaxTokens);
  EXPECT_GT(expected.size(), 10u);
  for (const int tp : {1, 2, 4}) {
    for (const int dp : {1, 2}) {
      SCOPED_TRACE(fmt::format("tp {} dp {}", tp, dp));
      ExpectSameBits(TraceLongest({.tp = tp, .dp = dp}, kMaxTokens), expected);
    }
  }
}

TEST_P(ModelBits, DoNotDependOnThePrefillChunk) {
  const Tensors expected = TraceLongest({}, kMaxTokens);
  for (const int64_t chunk : {1, 5, 64, 126, 127, 128, 129, 130}) {
    SCOPED_TRACE(fmt::format("chunk {}", chunk));
    ExpectSameBits(TraceLongest({}, chunk), expected);
  }
}

INSTANTIATE_TEST_SUITE_P(Recordings, ModelBits,
                         ::testing::ValuesIn(std::next(std::begin(kRecordings)),
                                             std::end(kRecordings)),
                         [](const auto& test) { return test.param.name; });

}  // namespace
}  // namespace tessera
