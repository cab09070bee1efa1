// BytePairModel: the vocabulary and the merges of byte-level BPE, on plain bytes. Turns
// one piece of text, as the pre-tokenizer cut it, into ids; knows neither added tokens
// nor regular expressions.
#ifndef TESSERA_MODEL_TOKENIZER_BYTE_PAIR_MODEL_H_
#define TESSERA_MODEL_TOKENIZER_BYTE_PAIR_MODEL_H_

#include <array>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

#include "model/tokenizer/tokenizer_json.h"

namespace tessera::model {

// Immutable after Create; thread-safe.
class BytePairModel {
 public:
  // Pieces of one text that were merged before, and where their ids are: text repeats its
  // rarer words, too. One piece for each place, the latest. Of one call and one thread;
  // the text must outlive it, and the ids may only be appended to by Encode.
  class Memo {
   public:
    // Takes 128 KiB for a text of 16 KiB or more, else nothing, and then remembers
    // nothing.
    explicit Memo(size_t text_bytes);

   private:
    friend class BytePairModel;
    struct Entry {
      std::string_view piece;
      size_t first_id = 0;  // in the ids of the text
      size_t count = 0;
    };
    std::vector<Entry> entries_;  // a power of two, or none
  };

  // kInvalidArgument: two entries with one id or one spelling, a byte without a token, or
  // a merge whose parts or result are not in the vocabulary.
  static absl::StatusOr<std::unique_ptr<BytePairModel>> Create(const TokenizerSpec& spec);

  // Appends the ids of `piece` to `ids`. Of all pairs of neighbours the one with the best
  // rank is merged first, the leftmost of equals; time O(n log n) in the length of the
  // piece.
  void Encode(std::string_view piece, std::vector<int32_t>* ids) const;
  // The same ids, sooner where `memo` knows the piece.
  void Encode(std::string_view piece, Memo* memo, std::vector<int32_t>* ids) const;

  // The bytes of a token; empty for an id that has none.
  std::string_view Bytes(int32_t id) const;

  // The token with exactly these bytes.
  std::optional<int32_t> Find(std::string_view bytes) const;

  // 1 + the largest id.
  int32_t size() const { return static_cast<int32_t>(starts_.size()) - 1; }

 private:
  struct Merge {
    uint32_t rank = UINT32_MAX;  // smaller is merged earlier; the maximum: no merge
    int32_t id = -1;             // what the pair becomes
  };

  // A piece that is one token, in an open-addressing table: up to eight bytes of the
  // piece, so that short ones need no look at bytes_.
  struct WholePiece {
    uint64_t first_bytes = 0;
    int32_t id = -1;  // none: an empty cell
    uint32_t length = 0;
  };

  BytePairModel() = default;
  absl::Status ReadVocabulary(const std::vector<VocabularyEntry>& vocabulary);
  absl::Status ReadMerges(const std::vector<std::pair<std::string, std::string>>& merges);
  std::optional<int32_t> FindSpelling(std::string_view spelling) const;
  void IndexWholePieces();
  int32_t FindWholePiece(std::string_view piece) const;
  Merge FindMerge(int32_t left, int32_t right) const;
  void EncodeByMerges(std::string_view piece, std::vector<int32_t>* ids) const;
  void EncodeShort(std::string_view piece, std::vector<int32_t>* ids) const;
  void EncodeLong(std::string_view piece, std::vector<int32_t>* ids) const;

  std::string bytes_;  // of all tokens, one after the other in the order of their ids
  std::vector<uint32_t> starts_;                         // [size + 1] into bytes_
  absl::flat_hash_map<absl::string_view, int32_t> ids_;  // keys point into bytes_
  absl::flat_hash_map<uint64_t, Merge> merges_;          // key: left id << 32 | right id
  std::array<int32_t, 256> id_of_byte_{};
  std::vector<Merge> byte_merges_;        // [256 * 256]: what two bytes become
  std::vector<WholePiece> whole_pieces_;  // a power of two, at most half full
};

}  // namespace tessera::model

#endif  // TESSERA_MODEL_TOKENIZER_BYTE_PAIR_MODEL_H_
