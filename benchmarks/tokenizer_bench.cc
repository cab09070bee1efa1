// Speed of loading, encoding and decoding with the demo tokenizer and DeepSeek V4's, on
// text of this repository. Run from the repository root. Bytes per second are bytes of
// text.
#include <algorithm>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <memory>
#include <string>
#include <vector>

#include "benchmark/benchmark.h"

#include "common/check.h"
#include "model/tokenizer/tokenizer.h"

namespace tessera::model {
namespace {

const char* const kDirectories[] = {"models/demo", "tests/data/tokenizer"};

std::unique_ptr<Tokenizer> LoadOf(const benchmark::State& state) {
  auto tokenizer = Tokenizer::Load(kDirectories[state.range(0)]);
  TESSERA_CHECK(tokenizer.ok());
  return std::move(*tokenizer);
}

// The sources and pages of model/, in a fixed order.
std::string SampleText() {
  std::vector<std::filesystem::path> paths;
  for (const auto& entry : std::filesystem::recursive_directory_iterator("model")) {
    if (entry.is_regular_file()) {
      paths.push_back(entry.path());
    }
  }
  std::sort(paths.begin(), paths.end());
  std::string text;
  for (const std::filesystem::path& path : paths) {
    std::ifstream file(path, std::ios::binary);
    text.append(std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>());
  }
  return text;
}

void SetBytes(benchmark::State* state, size_t num_bytes) {
  state->SetBytesProcessed(state->iterations() * static_cast<int64_t>(num_bytes));
}

void BM_Load(benchmark::State& state) {
  for (auto _ : state) {
    benchmark::DoNotOptimize(LoadOf(state));
  }
}

void BM_EncodeText(benchmark::State& state) {
  const auto tokenizer = LoadOf(state);
  const std::string text = SampleText();
  for (auto _ : state) {
    benchmark::DoNotOptimize(tokenizer->Encode(text, AddedTokens::kRecognize));
  }
  SetBytes(&state, text.size());
}

// One piece that no regular expression cuts: the heap of the merges at its largest.
void BM_EncodeOnePiece(benchmark::State& state) {
  const auto tokenizer = LoadOf(state);
  const std::string text(1 << 20, 'a');
  for (auto _ : state) {
    benchmark::DoNotOptimize(tokenizer->Encode(text, AddedTokens::kPlain));
  }
  SetBytes(&state, text.size());
}

void BM_DecodeByPushes(benchmark::State& state) {
  const auto tokenizer = LoadOf(state);
  const std::string text = SampleText();
  const std::vector<int32_t> ids = tokenizer->Encode(text, AddedTokens::kPlain);
  for (auto _ : state) {
    IncrementalDecoder decoder(tokenizer.get(), /*skip_special=*/true);
    for (const int32_t id : ids) {
      benchmark::DoNotOptimize(decoder.Push(id));
    }
  }
  SetBytes(&state, text.size());
}

BENCHMARK(BM_Load)->Arg(0)->Arg(1)->Unit(benchmark::kMillisecond);
BENCHMARK(BM_EncodeText)->Arg(0)->Arg(1)->Unit(benchmark::kMillisecond);
BENCHMARK(BM_EncodeOnePiece)->Arg(0)->Arg(1)->Unit(benchmark::kMillisecond);
BENCHMARK(BM_DecodeByPushes)->Arg(0)->Arg(1)->Unit(benchmark::kMillisecond);

}  // namespace
}  // namespace tessera::model

BENCHMARK_MAIN();
