// AddedTokens matching: where the added vocabulary of a tokenizer (control tokens) occurs
// in text. Sits in front of the pre-tokenizer: a match becomes one id, the text between
// goes through BPE.
#ifndef TESSERA_MODEL_TOKENIZER_ADDED_TOKENS_H_
#define TESSERA_MODEL_TOKENIZER_ADDED_TOKENS_H_

#include <array>
#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

namespace tessera::model {

// One entry of `added_tokens` in tokenizer.json.
struct AddedToken {
  int32_t id = 0;
  std::string content;      // never empty
  bool special = false;     // decoding may leave it out
  bool normalized = false;  // matched after the tokens that are not
};

// Finds leftmost-longest occurrences of a set of strings: a byte trie, walked from every
// position that holds a possible first byte. Immutable; thread-safe.
class AddedTokenTrie {
 public:
  explicit AddedTokenTrie(const std::vector<AddedToken>& tokens);

  // A stretch of text (id < 0), or an added token that was matched.
  struct Segment {
    std::string_view text;
    int32_t id = -1;
  };

  // Calls `emit` for the segments of `text`, in order; stretches of text are never empty.
  // The time is at most text.size() times the length of the longest token.
  void Split(std::string_view text,
             const std::function<void(const Segment&)>& emit) const;

 private:
  struct Node {
    uint8_t byte = 0;
    int32_t id = -1;  // the token that ends here
    int32_t first_child = -1;
    int32_t next_sibling = -1;
  };
  struct Match {
    size_t num_bytes = 0;  // 0: none
    int32_t id = -1;
  };

  int32_t FindChild(int32_t node, uint8_t byte) const;
  void Insert(const AddedToken& token);
  Match LongestAt(std::string_view text) const;

  std::vector<Node> nodes_;
  std::array<bool, 256> may_start_{};
};

}  // namespace tessera::model

#endif  // TESSERA_MODEL_TOKENIZER_ADDED_TOKENS_H_
