// Samples texts that JSON schemas allow, at temperature 2 from random logits, through the
// mask and the sampler that serve: what grammar_validity_test.py validates.
//
//   grammar_sampler TOKENIZER_FOLDER SCHEMAS STRIDE NUM_SAMPLES SEED
//
// Every STRIDE-th line of SCHEMAS ([draft, schema]) gives one line: {line, error} of a
// schema that was refused, or {line, texts, num_cut, compile_ms}.
#include <charconv>
#include <fstream>
#include <iostream>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/time/clock.h"
#include "nlohmann/json.hpp"

#include "common/check.h"
#include "common/counter_rng.h"
#include "coordinator/grammar/grammar_compiler.h"
#include "model/tokenizer/tokenizer.h"
#include "worker/runner/sampler.h"

namespace tessera {
namespace {

// A text ends by itself or is cut here; from half of it on, what closes is likelier.
constexpr size_t kMaxTokens = 160;

uint64_t Number(const char* text) {
  uint64_t value = 0;
  const std::string_view view(text);
  std::from_chars(view.data(), view.data() + view.size(), value);
  return value;
}

class SchemaSampler {
 public:
  SchemaSampler(const std::string& folder, uint64_t seed) : seed_(seed) {
    auto tokenizer = model::Tokenizer::Load(folder);
    TESSERA_CHECK(tokenizer.ok());
    tokenizer_ = *std::move(tokenizer);
    eos_ = *tokenizer_->TokenId("<｜end▁of▁sentence｜>");
    auto compiler =
        coordinator::GrammarCompiler::Create({.vocab_size = tokenizer_->size(),
                                              .num_token_ids = tokenizer_->size(),
                                              .eos_token_ids = {eos_}},
                                             {}, *tokenizer_);
    TESSERA_CHECK(compiler.ok());
    compiler_ = *std::move(compiler);
    sampler_ = std::make_unique<worker::Sampler>(tokenizer_->size());
    logits_.resize(static_cast<size_t>(tokenizer_->size()));
    for (int32_t id = 0; id < tokenizer_->size(); ++id) {
      const std::string_view text = tokenizer_->TokenBytes(id);
      closes_.push_back(id == eos_ || text == "\"" || text == "}" || text == "]" ||
                        text == "\"}" || text == "\"]");
    }
  }

  nlohmann::json Run(const std::string& schema, uint64_t num_samples) {
    nlohmann::json out;
    const absl::Time begin = absl::Now();
    const auto grammar = compiler_->Compile(
        {.kind = coordinator::GrammarKind::kJsonSchema, .text = schema});
    if (!grammar.ok()) {
      out["error"] = std::string(grammar.status().message());
      return out;
    }
    out["compile_ms"] = absl::ToDoubleMilliseconds(absl::Now() - begin);
    out["texts"] = nlohmann::json::array();
    int num_cut = 0;
    for (uint64_t i = 0; i < num_samples; ++i) {
      std::string text;
      if (SampleText(**grammar, seed_ + i, &text)) {
        out["texts"].push_back(text);
      } else {
        ++num_cut;
      }
    }
    out["num_cut"] = num_cut;
    return out;
  }

 private:
  // False: it did not end in time.
  bool SampleText(const coordinator::Grammar& grammar, uint64_t seed, std::string* text) {
    const auto matcher = grammar.NewMatcher(std::nullopt);
    std::vector<uint32_t> mask(grammar.num_words());
    std::vector<int32_t> tokens;
    while (tokens.size() < kMaxTokens) {
      TESSERA_CHECK(matcher->FillMask(mask).ok());
      const CounterRng random(seed, tokens.size());
      const float bonus = tokens.size() > kMaxTokens / 2 ? 30.0f : 6.0f;
      for (size_t id = 0; id < logits_.size(); ++id) {
        logits_[id] =
            static_cast<float>(8 * random.Uniform(id)) + (closes_[id] ? bonus : 0.0f);
      }
      const auto token =
          sampler_->Choose<float>(logits_, {.temperature = 2, .seed = seed},
                                  {.tokens = tokens, .prompt_length = 0, .mask = mask});
      TESSERA_CHECK(token.ok());
      TESSERA_CHECK(matcher->Accept(*token).ok());
      if (*token == eos_) {
        return true;
      }
      tokens.push_back(*token);
      text->append(tokenizer_->TokenBytes(*token));
    }
    return false;
  }

  const uint64_t seed_;
  std::unique_ptr<model::Tokenizer> tokenizer_;
  int32_t eos_ = 0;
  std::unique_ptr<coordinator::GrammarCompiler> compiler_;
  std::unique_ptr<worker::Sampler> sampler_;
  std::vector<float> logits_;
  std::vector<bool> closes_;
};

}  // namespace
}  // namespace tessera

int main(int argc, char** argv) {
  TESSERA_CHECK_EQ(argc, 6);
  tessera::SchemaSampler sampler(argv[1], tessera::Number(argv[5]));
  std::ifstream file(argv[2]);
  std::string line;
  for (uint64_t number = 0; std::getline(file, line); ++number) {
    if (number % tessera::Number(argv[3]) == 0) {
      const auto entry = nlohmann::ordered_json::parse(line);
      nlohmann::json out = sampler.Run(entry[1].dump(), tessera::Number(argv[4]));
      out["line"] = number;
      // Texts may end inside a character where they were cut; those are not kept.
      std::cout << out.dump(-1, ' ', true, nlohmann::json::error_handler_t::replace)
                << "\n";
    }
  }
  return 0;
}
