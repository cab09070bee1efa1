#include "coordinator/grammar/grammar_compiler.h"

#include <algorithm>
#include <exception>
#include <string>
#include <string_view>
#include <utility>
#include <variant>

#include "nlohmann/json.hpp"

#include "common/check.h"
#include "common/status.h"
#include "common/status_macros.h"
#include "coordinator/grammar/schema_rules.h"
#include "model/chat/control_tokens.h"
#include "xgrammar/xgrammar.h"

namespace tessera::coordinator {
namespace {

using Json = nlohmann::ordered_json;

// Blanks in a row between the parts of a JSON text: enough for an indentation, and not
// for a model that never comes to an end.
constexpr int kMaxBlanks = 8;

void Set(std::span<uint32_t> words, int32_t token) {
  const auto id = static_cast<uint32_t>(token);
  words[id / 32] |= uint32_t{1} << (id % 32);
}

class LibraryMatcher final : public GrammarMatcher {
 public:
  LibraryMatcher(const xgrammar::CompiledGrammar& grammar,
                 const GrammarVocabulary& vocabulary, std::optional<int32_t> begins_after)
      : matcher_(grammar), vocabulary_(vocabulary), begins_after_(begins_after) {}

  absl::Status Accept(int32_t token) override {
    if (begins_after_.has_value()) {
      if (token == *begins_after_) {
        begins_after_.reset();
      }
      return absl::OkStatus();
    }
    try {
      if (!matcher_.IsTerminated() && matcher_.AcceptToken(token)) {
        return absl::OkStatus();
      }
    } catch (const std::exception& error) {
      return InternalF("the grammar failed at token {}: {}", token, error.what());
    }
    return InternalF("the grammar does not allow token {}", token);
  }

  absl::Status FillMask(std::span<uint32_t> words) override {
    std::fill(words.begin(), words.end(), begins_after_.has_value() ? ~0u : 0u);
    if (begins_after_.has_value()) {
      for (const int32_t eos : vocabulary_.eos_token_ids) {
        words[static_cast<size_t>(eos) / 32] &=
            ~(uint32_t{1} << (static_cast<uint32_t>(eos) % 32));
      }
      return absl::OkStatus();
    }
    int64_t size = std::ssize(words);
    DLTensor tensor = {};
    tensor.data = words.data();
    tensor.device = {kDLCPU, 0};
    tensor.ndim = 1;
    tensor.dtype = {kDLInt, 32, 1};
    tensor.shape = &size;
    try {
      // False: everything is allowed, and the words may be as they were.
      if (!matcher_.FillNextTokenBitmask(&tensor)) {
        for (int32_t id = 0; id < vocabulary_.num_token_ids; ++id) {
          Set(words, id);
        }
      }
    } catch (const std::exception& error) {
      return InternalF("the grammar failed to say what comes next: {}", error.what());
    }
    const bool any =
        std::any_of(words.begin(), words.end(), [](uint32_t word) { return word != 0; });
    return any ? absl::OkStatus() : InternalF("the grammar allows nothing to come next");
  }

 private:
  xgrammar::GrammarMatcher matcher_;
  const GrammarVocabulary& vocabulary_;
  std::optional<int32_t> begins_after_;
};

class LibraryGrammar final : public Grammar {
 public:
  LibraryGrammar(xgrammar::CompiledGrammar grammar,
                 std::shared_ptr<const GrammarVocabulary> vocabulary)
      : grammar_(std::move(grammar)), vocabulary_(std::move(vocabulary)) {}

  std::unique_ptr<GrammarMatcher> NewMatcher(
      std::optional<int32_t> begins_after) const override {
    return std::make_unique<LibraryMatcher>(grammar_, *vocabulary_, begins_after);
  }
  size_t num_words() const override {
    return static_cast<size_t>(vocabulary_->vocab_size + 31) / 32;
  }
  size_t size_bytes() const override { return grammar_.MemorySizeBytes(); }

 private:
  xgrammar::CompiledGrammar grammar_;
  std::shared_ptr<const GrammarVocabulary> vocabulary_;
};

// Numbers that a double holds exactly compare alike in every reader; JSON that nests too
// deep is refused before anything recurses on it.
absl::StatusOr<Json> ParseBounded(const std::string& text, const GrammarLimits& limits) {
  TESSERA_RETURN_IF_ERROR(CheckJsonText(text, limits));
  Json parsed = Json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (parsed.is_discarded()) {
    return InvalidArgumentF("expected JSON");
  }
  return parsed;
}

// Schemas, patterns and grammars inside a structural tag.
absl::Status CheckTag(const Json& tag, const GrammarLimits& limits) {
  if (tag.is_object()) {
    if (const auto schema = tag.find("json_schema"); schema != tag.end()) {
      TESSERA_RETURN_IF_ERROR(CheckSchema(*schema, limits));
    }
    for (const auto& [name, syntax] : {std::pair{"pattern", PatternSyntax::kRegex},
                                       std::pair{"grammar", PatternSyntax::kEbnf}}) {
      const auto found = tag.find(name);
      if (found != tag.end() && found->is_string()) {
        TESSERA_RETURN_IF_ERROR(
            CheckPattern(found->get_ref<const std::string&>(), syntax, limits).status());
      }
    }
  }
  if (tag.is_structured()) {
    for (const auto& [key, value] : tag.items()) {
      if (key != "json_schema") {
        TESSERA_RETURN_IF_ERROR(CheckTag(value, limits));
      }
    }
  }
  return absl::OkStatus();
}

// Schemas inside a structural tag, whose JSON may have no more blanks than any other.
void BoundBlanks(Json* tag) {
  if (tag->is_object() && tag->contains("json_schema")) {
    (*tag)["max_whitespace_cnt"] = kMaxBlanks;
  }
  if (tag->is_structured()) {
    for (auto& [key, value] : tag->items()) {
      if (key != "json_schema") {
        BoundBlanks(&value);
      }
    }
  }
}

class LibraryCompiler final : public GrammarCompiler {
 public:
  LibraryCompiler(const GrammarVocabulary& vocabulary, const GrammarLimits& limits,
                  xgrammar::TokenizerInfo tokens)
      : vocabulary_(std::make_shared<GrammarVocabulary>(vocabulary)),
        limits_(limits),
        // One thread and no cache: GrammarPool has threads and a bounded cache.
        compiler_(std::move(tokens), 1, false) {}

  absl::StatusOr<std::shared_ptr<const Grammar>> Compile(
      const GrammarSpec& spec) const override {
    try {
      TESSERA_ASSIGN_OR_RETURN(xgrammar::CompiledGrammar compiled, CompileText(spec));
      if (compiled.MemorySizeBytes() > limits_.max_grammar_bytes) {
        return InvalidArgumentF("the grammar takes {} bytes when compiled, at most {}",
                                compiled.MemorySizeBytes(), limits_.max_grammar_bytes);
      }
      auto grammar = std::make_shared<LibraryGrammar>(std::move(compiled), vocabulary_);
      // Some grammars that no text can meet compile.
      std::vector<uint32_t> words(grammar->num_words());
      if (!grammar->NewMatcher(std::nullopt)->FillMask(words).ok()) {
        return InvalidArgumentF("no text can meet the grammar");
      }
      return grammar;
    } catch (const std::bad_alloc&) {
      return InvalidArgumentF("the grammar needs more memory than there is");
    } catch (const std::exception& error) {
      return InvalidArgumentF("{}", error.what());
    }
  }

 private:
  absl::StatusOr<xgrammar::CompiledGrammar> CompileText(const GrammarSpec& spec) const;
  absl::StatusOr<xgrammar::CompiledGrammar> CompileTag(Json tag) const;

  std::shared_ptr<const GrammarVocabulary> vocabulary_;
  const GrammarLimits limits_;
  mutable xgrammar::GrammarCompiler compiler_;
};

absl::StatusOr<xgrammar::CompiledGrammar> LibraryCompiler::CompileTag(Json tag) const {
  TESSERA_RETURN_IF_ERROR(CheckTag(tag, limits_));
  BoundBlanks(&tag);
  return compiler_.CompileStructuralTag(tag.dump());
}

absl::StatusOr<xgrammar::CompiledGrammar> LibraryCompiler::CompileText(
    const GrammarSpec& spec) const {
  switch (spec.kind) {
    case GrammarKind::kJsonObject:
      return compiler_.CompileJSONSchema(R"({"type": "object"})", true, std::nullopt,
                                         std::nullopt, false, kMaxBlanks);
    case GrammarKind::kJsonSchema: {
      TESSERA_ASSIGN_OR_RETURN(const Json schema, ParseBounded(spec.text, limits_));
      TESSERA_RETURN_IF_ERROR(CheckSchema(schema, limits_));
      return compiler_.CompileJSONSchema(schema.dump(), true, std::nullopt, std::nullopt,
                                         true, kMaxBlanks);
    }
    case GrammarKind::kRegex:
      TESSERA_RETURN_IF_ERROR(
          CheckPattern(spec.text, PatternSyntax::kRegex, limits_).status());
      return compiler_.CompileRegex(spec.text);
    case GrammarKind::kEbnf:
      TESSERA_RETURN_IF_ERROR(
          CheckPattern(spec.text, PatternSyntax::kEbnf, limits_).status());
      return compiler_.CompileGrammar(spec.text);
    case GrammarKind::kChoice: {
      TESSERA_ASSIGN_OR_RETURN(const Json choices, ParseBounded(spec.text, limits_));
      if (!choices.is_array() || choices.empty() ||
          std::ssize(choices) > limits_.max_alternatives) {
        return InvalidArgumentF("expected a list of 1 to {} strings",
                                limits_.max_alternatives);
      }
      Json elements = Json::array();
      for (const Json& choice : choices) {
        if (!choice.is_string() || choice.get_ref<const std::string&>().empty()) {
          return InvalidArgumentF("expected choices that are strings and not empty");
        }
        elements.push_back({{"type", "const_string"}, {"value", choice}});
      }
      return CompileTag(
          {{"type", "structural_tag"},
           {"format", {{"type", "or"}, {"elements", std::move(elements)}}}});
    }
    case GrammarKind::kStructuralTag: {
      TESSERA_ASSIGN_OR_RETURN(Json tag, ParseBounded(spec.text, limits_));
      return CompileTag(std::move(tag));
    }
  }
  return InvalidArgumentF("a grammar of an unknown kind");
}

// Control tokens have no text here, so that no grammar allows them, but for those that
// tool calls are spelled with.
std::vector<std::string> TokenTexts(const GrammarVocabulary& vocabulary,
                                    const model::Tokenizer& tokenizer) {
  std::vector<std::string> texts(static_cast<size_t>(vocabulary.vocab_size));
  const auto count =
      static_cast<int32_t>(std::min<int64_t>(vocabulary.num_token_ids, tokenizer.size()));
  for (int32_t id = 0; id < count; ++id) {
    if (!tokenizer.IsSpecial(id)) {
      texts[static_cast<size_t>(id)] = std::string(tokenizer.TokenBytes(id));
    }
  }
  for (const std::string_view text :
       {model::kDsmlToken, model::kCallsBeginToken, model::kCallsEndToken,
        model::kCallBeginToken, model::kCallEndToken, model::kSepToken}) {
    if (const auto id = tokenizer.TokenId(text); id.has_value() && *id < count) {
      texts[static_cast<size_t>(*id)] = std::string(text);
    }
  }
  for (const std::string_view text :
       {model::kBosToken, model::kEosToken, model::kUserToken, model::kAssistantToken,
        model::kThinkToken, model::kEndThinkToken}) {
    if (const auto id = tokenizer.TokenId(text); id.has_value() && *id < count) {
      texts[static_cast<size_t>(*id)].clear();
    }
  }
  for (const int32_t eos : vocabulary.eos_token_ids) {
    texts[static_cast<size_t>(eos)].clear();
  }
  return texts;
}

}  // namespace

absl::StatusOr<std::unique_ptr<GrammarCompiler>> GrammarCompiler::Create(
    const GrammarVocabulary& vocabulary, const GrammarLimits& limits,
    const model::Tokenizer& tokenizer) {
  const bool fits =
      std::all_of(vocabulary.eos_token_ids.begin(), vocabulary.eos_token_ids.end(),
                  [&](int32_t id) { return id >= 0 && id < vocabulary.num_token_ids; });
  if (vocabulary.eos_token_ids.empty() || !fits ||
      vocabulary.num_token_ids > vocabulary.vocab_size) {
    return InvalidArgumentF("{} ends of sequence in a vocabulary of {} of {} ids",
                            vocabulary.eos_token_ids.size(), vocabulary.num_token_ids,
                            vocabulary.vocab_size);
  }
  try {
    xgrammar::TokenizerInfo tokens(
        TokenTexts(vocabulary, tokenizer), xgrammar::VocabType::RAW,
        static_cast<int>(vocabulary.vocab_size), vocabulary.eos_token_ids);
    return std::make_unique<LibraryCompiler>(vocabulary, limits, std::move(tokens));
  } catch (const std::exception& error) {
    return InvalidArgumentF("the vocabulary: {}", error.what());
  }
}

}  // namespace tessera::coordinator
