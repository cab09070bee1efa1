// What structured output costs for a vocabulary of 129,280: the time of a mask, and the
// time to compile a grammar cold. Also how much a cold compile on the pool's thread
// delays masks of another stream on this one.
#include <algorithm>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/time/clock.h"
#include "fmt/format.h"

#include "common/check.h"
#include "common/clock.h"
#include "common/mutex.h"
#include "coordinator/grammar/grammar_compiler.h"
#include "coordinator/grammar/grammar_pool.h"
#include "model/tokenizer/tokenizer.h"

namespace tessera {
namespace {

using coordinator::Grammar;
using coordinator::GrammarKind;

constexpr int kRepeats = 20;

struct Case {
  const char* name;
  GrammarKind kind;
  const char* text;
  const char* answer;
};

constexpr char kAda[] =
    R"({"name": "Ada Lovelace", "born": 1815, "works": ["notes", "engine"], "ok": )"
    "true}";

constexpr Case kCases[] = {
    {"json_object", GrammarKind::kJsonObject, "", kAda},
    {"json_schema", GrammarKind::kJsonSchema,
     R"({"type": "object", "properties": {"name": {"type": "string", "maxLength": 40},
      "born": {"type": "integer", "minimum": 1000, "maximum": 2100}, "works": {"type":
      "array", "items": {"enum": ["notes", "engine", "letters"]}}, "ok": {"type":
      "boolean"}}, "required": ["name", "born", "works", "ok"]})",
     kAda},
    {"regex", GrammarKind::kRegex, "[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9:]+Z",
     "2026-11-25T21:30:00Z"},
    {"choice", GrammarKind::kChoice, R"(["positive", "negative", "neutral"])",
     "negative"}};

std::string Percentiles(std::vector<absl::Duration> times) {
  std::sort(times.begin(), times.end());
  const auto at = [&](double p) {
    const auto i = static_cast<size_t>(p * static_cast<double>(times.size() - 1));
    return absl::ToDoubleMicroseconds(times[i]);
  };
  return fmt::format("median {:8.1f} us  p99 {:8.1f} us  max {:8.1f} us  ({} masks)",
                     at(0.5), at(0.99), at(1.0), times.size());
}

// The times of the masks along one answer.
void TimeMasks(const Grammar& grammar, const std::vector<int32_t>& ids,
               std::vector<absl::Duration>* times) {
  const auto matcher = grammar.NewMatcher(std::nullopt);
  std::vector<uint32_t> words(grammar.num_words());
  for (const int32_t id : ids) {
    const absl::Time begin = absl::Now();
    TESSERA_CHECK(matcher->FillMask(words).ok());
    times->push_back(absl::Now() - begin);
    TESSERA_CHECK(matcher->Accept(id).ok());
  }
}

void Run() {
  auto tokenizer = model::Tokenizer::Load("tests/data/tokenizer");
  TESSERA_CHECK(tokenizer.ok());
  const model::Tokenizer& text = **tokenizer;
  const absl::Time begin = absl::Now();
  auto compiler = coordinator::GrammarCompiler::Create(
      {.vocab_size = text.size(),
       .num_token_ids = text.size(),
       .eos_token_ids = {*text.TokenId("<｜end▁of▁sentence｜>")}},
      {}, text);
  TESSERA_CHECK(compiler.ok());
  fmt::print("vocabulary of {}: {:.0f} ms once\n", text.size(),
             absl::ToDoubleMilliseconds(absl::Now() - begin));
  std::shared_ptr<const Grammar> first;
  std::vector<int32_t> first_ids;
  for (const Case& one : kCases) {
    const absl::Time start = absl::Now();
    const auto grammar = (*compiler)->Compile({.kind = one.kind, .text = one.text});
    TESSERA_CHECK(grammar.ok());
    const absl::Duration compile = absl::Now() - start;
    const std::vector<int32_t> ids = text.Encode(one.answer, model::AddedTokens::kPlain);
    std::vector<absl::Duration> times;
    for (int i = 0; i < kRepeats; ++i) {
      TimeMasks(**grammar, ids, &times);
    }
    fmt::print("{:12} compile {:7.1f} ms  {:5.1f} MB  {}\n", one.name,
               absl::ToDoubleMilliseconds(compile),
               static_cast<double>((*grammar)->size_bytes()) / 1e6, Percentiles(times));
    if (first == nullptr) {
      first = *grammar;
      first_ids = ids;
    }
  }
  coordinator::GrammarPool pool({}, compiler->get(), Clock::Real());
  Notification done;
  pool.Compile({.kind = kCases[1].kind, .text = kCases[1].text},
               [&](const auto&) { done.Notify(); });
  std::vector<absl::Duration> times;
  while (!done.HasBeenNotified()) {
    TimeMasks(*first, first_ids, &times);
  }
  fmt::print("beside a cold compile: {}\n", Percentiles(times));
}

}  // namespace
}  // namespace tessera

int main() { tessera::Run(); }
