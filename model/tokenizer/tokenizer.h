// Tokenizer: byte-level BPE from tokenizer.json with DeepSeek's pre-tokenizer, and text
// back from ids. Matches HF tokenizers on the golden cases. The chat encoding
// (model/chat) writes control tokens as ids; this class decides whether text may spell
// them.
#ifndef TESSERA_MODEL_TOKENIZER_TOKENIZER_H_
#define TESSERA_MODEL_TOKENIZER_TOKENIZER_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"

namespace tessera::model {

// What text is allowed to mean.
enum class AddedTokens {
  kRecognize,  // /v1/completions and /tokenize: text that spells an added token is that
               // token
  kPlain,      // what a chat user typed: bytes only, never a control token
};

// Immutable after Load; thread-safe.
class Tokenizer {
 public:
  // Reads DIR/tokenizer.json. kNotFound, or kInvalidArgument for a tokenizer of another
  // kind (the message names the component that is not supported). Where
  // DIR/tokenizer_config.json exists, its added_tokens_decoder decides which tokens are
  // special. Files of more than 64 MiB are refused. Blocks on the file system.
  static absl::StatusOr<std::unique_ptr<Tokenizer>> Load(const std::string& directory);

  // The same from the contents of the files; `tokenizer_config` may be empty.
  static absl::StatusOr<std::unique_ptr<Tokenizer>> Parse(
      std::string_view tokenizer_json, std::string_view tokenizer_config);
  virtual ~Tokenizer() = default;

  // Invalid UTF-8 becomes U+FFFD, one per maximal ill-formed subpart, before splitting.
  // Appends nothing by itself (no BOS).
  virtual std::vector<int32_t> Encode(std::string_view text, AddedTokens added) const = 0;

  // Text of `ids`; bytes that form no UTF-8 become U+FFFD. kInvalidArgument for an id out
  // of range. `skip_special` leaves out tokens marked special.
  virtual absl::StatusOr<std::string> Decode(std::span<const int32_t> ids,
                                             bool skip_special) const = 0;

  // The raw bytes that one id stands for (an added token: its text); empty for ids
  // without a token.
  virtual std::string_view TokenBytes(int32_t id) const = 0;

  // The id whose token is exactly `text`, added tokens first.
  virtual std::optional<int32_t> TokenId(std::string_view text) const = 0;

  virtual bool IsSpecial(int32_t id) const = 0;

  // 1 + the largest id.
  virtual int32_t size() const = 0;
};

// Turns a growing list of ids into text that never ends in half a UTF-8 character. One
// per choice of a request; external synchronisation.
class IncrementalDecoder {
 public:
  // `tokenizer` must outlive it. `skip_special`: tokens marked special give no text.
  IncrementalDecoder(const Tokenizer* tokenizer, bool skip_special)
      : tokenizer_(tokenizer), skip_special_(skip_special) {}

  // Text that became complete with `id`; bytes of an unfinished character (at most 3) are
  // held back. An id without a token gives no text.
  std::string Push(int32_t id);

  // What is still held back, as U+FFFD; call once at the end. All that Push and Flush
  // returned is together what Decode gives for the same ids.
  std::string Flush();

 private:
  const Tokenizer* tokenizer_;
  bool skip_special_;
  std::string pending_;
};

}  // namespace tessera::model

#endif  // TESSERA_MODEL_TOKENIZER_TOKENIZER_H_
