#include "model/tokenizer/added_tokens.h"

namespace tessera::model {

AddedTokenTrie::AddedTokenTrie(const std::vector<AddedToken>& tokens) {
  nodes_.emplace_back();
  for (const AddedToken& token : tokens) {
    Insert(token);
  }
}

int32_t AddedTokenTrie::FindChild(int32_t node, uint8_t byte) const {
  // Siblings are a list: control tokens share long prefixes, so that nodes have few
  // children.
  int32_t child = nodes_[static_cast<size_t>(node)].first_child;
  while (child >= 0 && nodes_[static_cast<size_t>(child)].byte != byte) {
    child = nodes_[static_cast<size_t>(child)].next_sibling;
  }
  return child;
}

void AddedTokenTrie::Insert(const AddedToken& token) {
  int32_t node = 0;
  for (const char c : token.content) {
    const uint8_t byte = static_cast<uint8_t>(c);
    int32_t child = FindChild(node, byte);
    if (child < 0) {
      child = static_cast<int32_t>(nodes_.size());
      nodes_.push_back(
          {.byte = byte, .next_sibling = nodes_[static_cast<size_t>(node)].first_child});
      nodes_[static_cast<size_t>(node)].first_child = child;
    }
    node = child;
  }
  nodes_[static_cast<size_t>(node)].id = token.id;
  may_start_[static_cast<uint8_t>(token.content[0])] = true;
}

AddedTokenTrie::Match AddedTokenTrie::LongestAt(std::string_view text) const {
  Match best;
  int32_t node = 0;
  for (size_t i = 0; i < text.size(); ++i) {
    node = FindChild(node, static_cast<uint8_t>(text[i]));
    if (node < 0) {
      break;
    }
    if (nodes_[static_cast<size_t>(node)].id >= 0) {
      best = {i + 1, nodes_[static_cast<size_t>(node)].id};
    }
  }
  return best;
}

void AddedTokenTrie::Split(std::string_view text,
                           const std::function<void(const Segment&)>& emit) const {
  size_t start = 0;
  size_t pos = 0;
  while (pos < text.size()) {
    if (!may_start_[static_cast<uint8_t>(text[pos])]) {
      ++pos;
      continue;
    }
    const Match match = LongestAt(text.substr(pos));
    if (match.num_bytes == 0) {
      ++pos;
      continue;
    }
    if (pos > start) {
      emit({text.substr(start, pos - start), -1});
    }
    emit({text.substr(pos, match.num_bytes), match.id});
    pos += match.num_bytes;
    start = pos;
  }
  if (start < text.size()) {
    emit({text.substr(start), -1});
  }
}

}  // namespace tessera::model
