#include "model/tokenizer/tokenizer.h"

#include <algorithm>
#include <fstream>
#include <new>
#include <system_error>
#include <utility>

#include "absl/container/flat_hash_map.h"

#include "common/status.h"
#include "common/status_macros.h"
#include "model/tokenizer/added_tokens.h"
#include "model/tokenizer/byte_pair_model.h"
#include "model/tokenizer/pre_tokenizer.h"
#include "model/tokenizer/tokenizer_json.h"
#include "model/tokenizer/utf8.h"

namespace tessera::model {
namespace {

constexpr int64_t kMaxFileBytes = int64_t{64} << 20;

absl::StatusOr<std::string> ReadFile(const std::string& path) {
  std::ifstream file(path, std::ios::binary | std::ios::ate);
  if (!file) {
    return StatusF(absl::StatusCode::kNotFound, "no readable file {}", path);
  }
  const int64_t num_bytes = file.tellg();
  if (num_bytes < 0 || num_bytes > kMaxFileBytes) {
    return InvalidArgumentF("{} has {} bytes, expected at most {}", path, num_bytes,
                            kMaxFileBytes);
  }
  std::string text(static_cast<size_t>(num_bytes), '\0');
  file.seekg(0);
  if (!file.read(text.data(), num_bytes)) {
    return DataLossF("{} ended before its {} bytes were read", path, num_bytes);
  }
  return text;
}

std::vector<AddedToken> WithNormalized(const std::vector<AddedToken>& tokens,
                                       bool normalized) {
  std::vector<AddedToken> result;
  std::copy_if(tokens.begin(), tokens.end(), std::back_inserter(result),
               [normalized](const AddedToken& t) { return t.normalized == normalized; });
  return result;
}

class ByteLevelTokenizer final : public Tokenizer {
 public:
  static absl::StatusOr<std::unique_ptr<Tokenizer>> Create(TokenizerSpec spec) {
    TESSERA_ASSIGN_OR_RETURN(std::unique_ptr<PreTokenizer> pre_tokenizer,
                             PreTokenizer::Create(spec.split_patterns));
    TESSERA_ASSIGN_OR_RETURN(std::unique_ptr<BytePairModel> bpe,
                             BytePairModel::Create(spec));
    std::unique_ptr<ByteLevelTokenizer> tokenizer(new ByteLevelTokenizer(
        std::move(pre_tokenizer), std::move(bpe), std::move(spec.added_tokens)));
    TESSERA_RETURN_IF_ERROR(tokenizer->IndexAddedTokens());
    return tokenizer;
  }

  std::vector<int32_t> Encode(std::string_view text, AddedTokens added) const override {
    std::vector<int32_t> ids;
    if (WellFormedPrefix(text) == text.size()) {
      EncodeWellFormed(text, added, &ids);
    } else {
      EncodeWellFormed(ReplaceIllFormed(text), added, &ids);
    }
    return ids;
  }

  absl::StatusOr<std::string> Decode(std::span<const int32_t> ids,
                                     bool skip_special) const override {
    std::string bytes;
    for (const int32_t id : ids) {
      if (id < 0 || id >= size_) {
        return InvalidArgumentF("token id {}, expected 0 to {}", id, size_ - 1);
      }
      if (!skip_special || !IsSpecial(id)) {
        bytes += TokenBytes(id);
      }
    }
    return ReplaceIllFormed(bytes);
  }

  std::string_view TokenBytes(int32_t id) const override {
    const auto it = added_idx_of_id_.find(id);
    return it == added_idx_of_id_.end()
               ? bpe_->Bytes(id)
               : std::string_view(added_tokens_[it->second].content);
  }

  std::optional<int32_t> TokenId(std::string_view text) const override {
    const auto it = added_id_of_text_.find(absl::string_view(text.data(), text.size()));
    return it == added_id_of_text_.end() ? bpe_->Find(text) : it->second;
  }

  bool IsSpecial(int32_t id) const override {
    const auto it = added_idx_of_id_.find(id);
    return it != added_idx_of_id_.end() && added_tokens_[it->second].special;
  }

  int32_t size() const override { return size_; }

 private:
  ByteLevelTokenizer(std::unique_ptr<PreTokenizer> pre_tokenizer,
                     std::unique_ptr<BytePairModel> bpe,
                     std::vector<AddedToken> added_tokens)
      : pre_tokenizer_(std::move(pre_tokenizer)),
        bpe_(std::move(bpe)),
        added_tokens_(std::move(added_tokens)),
        raw_tokens_(WithNormalized(added_tokens_, false)),
        normalized_tokens_(WithNormalized(added_tokens_, true)),
        size_(bpe_->size()) {}

  absl::Status IndexAddedTokens() {
    for (size_t i = 0; i < added_tokens_.size(); ++i) {
      const AddedToken& token = added_tokens_[i];
      const bool new_id = added_idx_of_id_.emplace(token.id, i).second;
      const bool new_text = added_id_of_text_.emplace(token.content, token.id).second;
      if (!new_id || !new_text) {
        return InvalidArgumentF("tokenizer added token `{}` ({}) is listed twice",
                                token.content, token.id);
      }
      const std::string_view other = bpe_->Bytes(token.id);
      if (!other.empty() && other != token.content) {
        return InvalidArgumentF(
            "tokenizer added token `{}` has id {}, which is `{}` in the "
            "vocabulary",
            token.content, token.id, other);
      }
      size_ = std::max(size_, token.id + 1);
    }
    return absl::OkStatus();
  }

  void EncodeWellFormed(std::string_view text, AddedTokens added,
                        std::vector<int32_t>* ids) const {
    if (added == AddedTokens::kPlain) {
      EncodePlain(text, ids);
      return;
    }
    // Tokens that are not normalised take precedence over those that are, wherever they
    // overlap; the normaliser itself is empty.
    raw_tokens_.Split(text, [&](const AddedTokenTrie::Segment& outer) {
      if (outer.id >= 0) {
        ids->push_back(outer.id);
        return;
      }
      normalized_tokens_.Split(outer.text, [&](const AddedTokenTrie::Segment& inner) {
        if (inner.id >= 0) {
          ids->push_back(inner.id);
        } else {
          EncodePlain(inner.text, ids);
        }
      });
    });
  }

  void EncodePlain(std::string_view text, std::vector<int32_t>* ids) const {
    std::vector<std::string_view> pieces;
    pre_tokenizer_->Split(text, &pieces);
    ids->reserve(ids->size() + pieces.size() + pieces.size() / 2);
    BytePairModel::Memo memo(text.size());
    for (const std::string_view piece : pieces) {
      bpe_->Encode(piece, &memo, ids);
    }
  }

  std::unique_ptr<PreTokenizer> pre_tokenizer_;
  std::unique_ptr<BytePairModel> bpe_;
  std::vector<AddedToken> added_tokens_;
  AddedTokenTrie raw_tokens_;
  AddedTokenTrie normalized_tokens_;
  absl::flat_hash_map<int32_t, size_t> added_idx_of_id_;
  absl::flat_hash_map<std::string, int32_t> added_id_of_text_;
  int32_t size_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<Tokenizer>> Tokenizer::Load(const std::string& directory) {
  TESSERA_ASSIGN_OR_RETURN(const std::string json,
                           ReadFile(directory + "/tokenizer.json"));
  absl::StatusOr<std::string> config = ReadFile(directory + "/tokenizer_config.json");
  if (!config.ok() && !absl::IsNotFound(config.status())) {
    return config.status();
  }
  absl::StatusOr<std::unique_ptr<Tokenizer>> tokenizer =
      Parse(json, config.ok() ? *config : std::string());
  if (!tokenizer.ok()) {
    return WithContext(tokenizer.status(), directory);
  }
  return tokenizer;
}

absl::StatusOr<std::unique_ptr<Tokenizer>> Tokenizer::Parse(
    std::string_view tokenizer_json, std::string_view tokenizer_config) {
  TESSERA_ASSIGN_OR_RETURN(TokenizerSpec spec, ParseTokenizerJson(tokenizer_json));
  if (!tokenizer_config.empty()) {
    TESSERA_RETURN_IF_ERROR(ApplyTokenizerConfig(tokenizer_config, &spec));
  }
  return ByteLevelTokenizer::Create(std::move(spec));
}

std::string IncrementalDecoder::Push(int32_t id) {
  std::string text;
  if (!skip_special_ || !tokenizer_->IsSpecial(id)) {
    pending_ += tokenizer_->TokenBytes(id);
    DrainDecided(&pending_, &text);
  }
  return text;
}

std::string IncrementalDecoder::Flush() {
  const bool held_back = !pending_.empty();
  pending_.clear();
  return std::string(held_back ? kReplacementCharacter : std::string_view());
}

}  // namespace tessera::model
