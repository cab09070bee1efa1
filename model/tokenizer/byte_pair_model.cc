#include "model/tokenizer/byte_pair_model.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <queue>

#include "common/status.h"
#include "common/status_macros.h"
#include "model/tokenizer/byte_alphabet.h"

namespace tessera::model {
namespace {

// Up to this many bytes a scan for the best pair beats a heap: nearly all pieces of real
// text are shorter (words of 1 to 20 bytes), and a scan of 64 adjacent ranks is a few
// dozen cycles.
constexpr size_t kShortPieceBytes = 64;

absl::string_view ToAbsl(std::string_view text) { return {text.data(), text.size()}; }

uint64_t PairKey(int32_t left, int32_t right) {
  return (static_cast<uint64_t>(static_cast<uint32_t>(left)) << 32) |
         static_cast<uint32_t>(right);
}

// Longer tokens are runs of one character, rare enough to be merged each time.
constexpr size_t kMaxWholePieceBytes = kShortPieceBytes;

// A memo of 4096 entries of 32 bytes stays in L2, and a text has to be long enough to
// repeat them and to be worth the clearing.
constexpr size_t kMemoEntries = 4096;
constexpr size_t kMemoTextBytes = size_t{16} << 10;

// The first eight bytes, or all there are, as a number; zeros behind them.
uint64_t FirstBytes(std::string_view text) {
  uint64_t number = 0;
  if (text.size() >= sizeof(number)) {
    std::memcpy(&number, text.data(), sizeof(number));
    return number;
  }
  // Two loads that may overlap: a copy of a length not known would be a call.
  if (text.size() >= sizeof(uint32_t)) {
    uint32_t low = 0;
    uint32_t high = 0;
    std::memcpy(&low, text.data(), sizeof(low));
    std::memcpy(&high, text.data() + text.size() - sizeof(high), sizeof(high));
    const size_t shift = 8 * (text.size() - sizeof(high));
    return low | static_cast<uint64_t>(high) << shift;
  }
  for (size_t i = 0; i < text.size(); ++i) {
    number |= static_cast<uint64_t>(static_cast<uint8_t>(text[i])) << (8 * i);
  }
  return number;
}

// Of a piece; the high bits are the better ones.
uint64_t HashOf(std::string_view text) {
  constexpr uint64_t kOdd = 0x9E3779B97F4A7C15;
  uint64_t hash = text.size() * kOdd;
  for (; text.size() > sizeof(uint64_t); text.remove_prefix(sizeof(uint64_t))) {
    hash = (hash ^ FirstBytes(text)) * kOdd;
    hash ^= hash >> 32;
  }
  hash = (hash ^ FirstBytes(text)) * kOdd;
  return (hash ^ (hash >> 32)) * kOdd;
}

}  // namespace

absl::StatusOr<std::unique_ptr<BytePairModel>> BytePairModel::Create(
    const TokenizerSpec& spec) {
  std::unique_ptr<BytePairModel> model(new BytePairModel());
  TESSERA_RETURN_IF_ERROR(model->ReadVocabulary(spec.vocabulary));
  TESSERA_RETURN_IF_ERROR(model->ReadMerges(spec.merges));
  model->IndexWholePieces();
  return model;
}

absl::Status BytePairModel::ReadVocabulary(
    const std::vector<VocabularyEntry>& vocabulary) {
  int32_t max_id = -1;
  size_t num_bytes = 0;
  for (const VocabularyEntry& entry : vocabulary) {
    max_id = std::max(max_id, entry.id);
    num_bytes += entry.spelling.size();
  }
  std::vector<const VocabularyEntry*> by_id(static_cast<size_t>(max_id) + 1, nullptr);
  for (const VocabularyEntry& entry : vocabulary) {
    const VocabularyEntry*& slot = by_id[static_cast<size_t>(entry.id)];
    if (slot != nullptr) {
      return InvalidArgumentF("tokenizer vocabulary has `{}` and `{}` under id {}",
                              slot->spelling, entry.spelling, entry.id);
    }
    slot = &entry;
  }
  bytes_.reserve(num_bytes);  // keys of ids_ point into it, so it must never move
  starts_.reserve(by_id.size() + 1);
  starts_.push_back(0);
  ids_.reserve(vocabulary.size());
  for (size_t id = 0; id < by_id.size(); ++id) {
    const size_t start = bytes_.size();
    if (by_id[id] != nullptr) {
      const std::string& spelling = by_id[id]->spelling;
      bytes_ += BytesOfSpelling(spelling).value_or(spelling);
      const absl::string_view key(bytes_.data() + start, bytes_.size() - start);
      if (!ids_.emplace(key, static_cast<int32_t>(id)).second) {
        return InvalidArgumentF("tokenizer vocabulary has `{}` twice", spelling);
      }
    }
    starts_.push_back(static_cast<uint32_t>(bytes_.size()));
  }
  for (int byte = 0; byte < 256; ++byte) {
    const char c = static_cast<char>(byte);
    const std::optional<int32_t> id = Find({&c, 1});
    if (!id.has_value()) {
      return InvalidArgumentF("tokenizer vocabulary has no token for byte {:#04x}", byte);
    }
    id_of_byte_[static_cast<size_t>(byte)] = *id;
  }
  return absl::OkStatus();
}

absl::Status BytePairModel::ReadMerges(
    const std::vector<std::pair<std::string, std::string>>& merges) {
  merges_.reserve(merges.size());
  for (size_t rank = 0; rank < merges.size(); ++rank) {
    const auto& [left, right] = merges[rank];
    const std::optional<int32_t> left_id = FindSpelling(left);
    const std::optional<int32_t> right_id = FindSpelling(right);
    const std::optional<int32_t> merged_id = FindSpelling(left + right);
    if (!left_id || !right_id || !merged_id) {
      return InvalidArgumentF(
          "tokenizer merge {} (`{}` `{}`) names tokens that are not in the "
          "vocabulary",
          rank, left, right);
    }
    merges_[PairKey(*left_id, *right_id)] = {static_cast<uint32_t>(rank), *merged_id};
  }
  byte_merges_.resize(id_of_byte_.size() * id_of_byte_.size());
  for (size_t i = 0; i < byte_merges_.size(); ++i) {
    byte_merges_[i] = FindMerge(id_of_byte_[i >> 8], id_of_byte_[i & 0xFF]);
  }
  return absl::OkStatus();
}

std::optional<int32_t> BytePairModel::FindSpelling(std::string_view spelling) const {
  const std::optional<std::string> bytes = BytesOfSpelling(spelling);
  return bytes.has_value() ? Find(*bytes) : std::nullopt;
}

std::optional<int32_t> BytePairModel::Find(std::string_view bytes) const {
  const auto it = ids_.find(ToAbsl(bytes));
  return it == ids_.end() ? std::nullopt : std::optional<int32_t>(it->second);
}

std::string_view BytePairModel::Bytes(int32_t id) const {
  if (id < 0 || id >= size()) {
    return {};
  }
  const size_t idx = static_cast<size_t>(id);
  return std::string_view(bytes_).substr(starts_[idx], starts_[idx + 1] - starts_[idx]);
}

BytePairModel::Merge BytePairModel::FindMerge(int32_t left, int32_t right) const {
  const auto it = merges_.find(PairKey(left, right));
  return it == merges_.end() ? Merge{} : it->second;
}

// A token is not always what its bytes are merged to, so that every one is tried.
void BytePairModel::IndexWholePieces() {
  whole_pieces_.resize(std::bit_ceil(2 * ids_.size() + 1));
  const int shift = 64 - std::countr_zero(whole_pieces_.size());
  std::vector<int32_t> ids;
  for (int32_t id = 0; id < size(); ++id) {
    const std::string_view bytes = Bytes(id);
    if (bytes.empty() || bytes.size() > kMaxWholePieceBytes) {
      continue;
    }
    ids.clear();
    EncodeShort(bytes, &ids);
    if (ids.size() != 1 || ids.front() != id) {
      continue;
    }
    size_t cell = HashOf(bytes) >> shift;
    while (whole_pieces_[cell].id >= 0) {
      cell = (cell + 1) & (whole_pieces_.size() - 1);
    }
    whole_pieces_[cell] = {FirstBytes(bytes), id, static_cast<uint32_t>(bytes.size())};
  }
}

// The token that `piece`, not empty and not too long, is merged to; -1 if it becomes
// several.
int32_t BytePairModel::FindWholePiece(std::string_view piece) const {
  const int shift = 64 - std::countr_zero(whole_pieces_.size());
  const uint64_t first_bytes = FirstBytes(piece);
  for (size_t cell = HashOf(piece) >> shift;;
       cell = (cell + 1) & (whole_pieces_.size() - 1)) {
    const WholePiece& found = whole_pieces_[cell];
    if (found.id < 0) {
      return -1;
    }
    if (found.first_bytes == first_bytes && found.length == piece.size() &&
        (piece.size() <= sizeof(first_bytes) || Bytes(found.id) == piece)) {
      return found.id;
    }
  }
}

void BytePairModel::Encode(std::string_view piece, std::vector<int32_t>* ids) const {
  const int32_t whole =
      piece.empty() || piece.size() > kMaxWholePieceBytes ? -1 : FindWholePiece(piece);
  if (whole >= 0) {
    ids->push_back(whole);
  } else {
    EncodeByMerges(piece, ids);
  }
}

BytePairModel::Memo::Memo(size_t text_bytes)
    : entries_(text_bytes < kMemoTextBytes ? 0 : kMemoEntries) {}

void BytePairModel::Encode(std::string_view piece, Memo* memo,
                           std::vector<int32_t>* ids) const {
  if (memo->entries_.empty() || piece.empty() || piece.size() > kMaxWholePieceBytes) {
    Encode(piece, ids);
    return;
  }
  const int32_t whole = FindWholePiece(piece);
  if (whole >= 0) {
    ids->push_back(whole);
    return;
  }
  const int shift = 64 - std::countr_zero(kMemoEntries);
  Memo::Entry& entry = memo->entries_[HashOf(piece) >> shift];
  const size_t first = ids->size();
  if (entry.piece != piece) {
    EncodeShort(piece, ids);
    entry = {piece, first, ids->size() - first};
    return;
  }
  ids->resize(first + entry.count);
  std::copy_n(ids->begin() + static_cast<ptrdiff_t>(entry.first_id), entry.count,
              ids->begin() + static_cast<ptrdiff_t>(first));
}

void BytePairModel::EncodeByMerges(std::string_view piece,
                                   std::vector<int32_t>* ids) const {
  if (piece.size() <= kShortPieceBytes) {
    EncodeShort(piece, ids);
  } else {
    EncodeLong(piece, ids);
  }
}

void BytePairModel::EncodeShort(std::string_view piece, std::vector<int32_t>* ids) const {
  // merges[i] is what symbols[i] and symbols[i + 1] become; the last has none.
  std::array<int32_t, kShortPieceBytes> symbols;
  std::array<Merge, kShortPieceBytes> merges;
  size_t count = piece.size();
  for (size_t i = 0; i < count; ++i) {
    symbols[i] = id_of_byte_[static_cast<uint8_t>(piece[i])];
  }
  for (size_t i = 0; i + 1 < count; ++i) {
    merges[i] = byte_merges_[static_cast<size_t>(static_cast<uint8_t>(piece[i])) << 8 |
                             static_cast<uint8_t>(piece[i + 1])];
  }
  while (count > 1) {
    size_t best = 0;
    for (size_t i = 1; i + 1 < count; ++i) {
      if (merges[i].rank < merges[best].rank) {
        best = i;
      }
    }
    if (merges[best].id < 0) {
      break;
    }
    symbols[best] = merges[best].id;
    std::copy(symbols.begin() + best + 2, symbols.begin() + count,
              symbols.begin() + best + 1);
    std::copy(merges.begin() + best + 2, merges.begin() + count,
              merges.begin() + best + 1);
    --count;
    if (best > 0) {
      merges[best - 1] = FindMerge(symbols[best - 1], symbols[best]);
    }
    merges[best] =
        best + 1 < count ? FindMerge(symbols[best], symbols[best + 1]) : Merge{};
  }
  ids->insert(ids->end(), symbols.begin(), symbols.begin() + count);
}

// The symbols form a linked list over the positions of the piece, and a heap holds the
// pairs that can be merged. A merge leaves stale heap entries behind instead of searching
// for them; they are known by a symbol that changed since. At most 3n entries are ever
// pushed.
void BytePairModel::EncodeLong(std::string_view piece, std::vector<int32_t>* ids) const {
  struct Symbol {
    int32_t id;  // -1: merged into the one before
    size_t previous;
    size_t next;
  };
  struct Candidate {
    Merge merge;
    size_t position;
    int32_t left;
    int32_t right;
  };
  const auto later = [](const Candidate& a, const Candidate& b) {
    return std::pair(a.merge.rank, a.position) > std::pair(b.merge.rank, b.position);
  };
  const size_t end = piece.size();
  std::vector<Symbol> symbols(end);
  for (size_t i = 0; i < end; ++i) {
    symbols[i] = {id_of_byte_[static_cast<uint8_t>(piece[i])], i == 0 ? end : i - 1,
                  i + 1};
  }
  std::priority_queue<Candidate, std::vector<Candidate>, decltype(later)> heap(later);
  const auto push = [&](size_t position) {
    if (position == end || symbols[position].next == end) {
      return;
    }
    const int32_t left = symbols[position].id;
    const int32_t right = symbols[symbols[position].next].id;
    const Merge merge = FindMerge(left, right);
    if (merge.id >= 0) {
      heap.push({merge, position, left, right});
    }
  };
  for (size_t i = 0; i + 1 < end; ++i) {
    push(i);
  }
  while (!heap.empty()) {
    const Candidate best = heap.top();
    heap.pop();
    Symbol& left = symbols[best.position];
    if (left.id != best.left || left.next == end || symbols[left.next].id != best.right) {
      continue;
    }
    Symbol& right = symbols[left.next];
    left.id = best.merge.id;
    left.next = right.next;
    right.id = -1;
    if (left.next != end) {
      symbols[left.next].previous = best.position;
    }
    push(left.previous);
    push(best.position);
  }
  for (size_t i = 0; i != end; i = symbols[i].next) {
    ids->push_back(symbols[i].id);
  }
}

}  // namespace tessera::model
