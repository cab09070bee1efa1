#include "model/tokenizer/utf8.h"

#include <cstring>

namespace tessera::model {
namespace {

// What the lead byte demands: how many bytes follow, and the range of the first of them.
// The range is what rules out overlong forms, surrogates and values above U+10FFFF (table
// 3-7).
struct LeadByte {
  int num_following = 0;  // 0: not a lead byte
  uint8_t low = 0x80;
  uint8_t high = 0xBF;
};

LeadByte ClassifyLead(uint8_t byte) {
  if (byte >= 0xC2 && byte <= 0xDF) {
    return {.num_following = 1};
  }
  if (byte >= 0xE0 && byte <= 0xEF) {
    return {.num_following = 2,
            .low = static_cast<uint8_t>(byte == 0xE0 ? 0xA0 : 0x80),
            .high = static_cast<uint8_t>(byte == 0xED ? 0x9F : 0xBF)};
  }
  if (byte >= 0xF0 && byte <= 0xF4) {
    return {.num_following = 3,
            .low = static_cast<uint8_t>(byte == 0xF0 ? 0x90 : 0x80),
            .high = static_cast<uint8_t>(byte == 0xF4 ? 0x8F : 0xBF)};
  }
  return {};
}

// Length of the ASCII prefix, eight bytes at a time: most text is ASCII, and both the
// check before encoding and the decoder run over all of it.
size_t AsciiPrefix(std::string_view text) {
  size_t pos = 0;
  while (pos + 8 <= text.size()) {
    uint64_t word = 0;
    std::memcpy(&word, text.data() + pos, 8);
    if ((word & 0x8080808080808080ULL) != 0) {
      break;
    }
    pos += 8;
  }
  while (pos < text.size() && static_cast<uint8_t>(text[pos]) < 0x80) {
    ++pos;
  }
  return pos;
}

}  // namespace

Utf8Step NextUtf8(std::string_view text) {
  const uint8_t first = static_cast<uint8_t>(text[0]);
  if (first < 0x80) {
    return {1, Utf8Kind::kCharacter};
  }
  const LeadByte lead = ClassifyLead(first);
  if (lead.num_following == 0) {
    return {1, Utf8Kind::kIllFormed};
  }
  uint8_t low = lead.low;
  uint8_t high = lead.high;
  for (size_t i = 1; i <= static_cast<size_t>(lead.num_following); ++i) {
    if (i >= text.size()) {
      return {i, Utf8Kind::kTruncated};
    }
    const uint8_t byte = static_cast<uint8_t>(text[i]);
    if (byte < low || byte > high) {
      return {i, Utf8Kind::kIllFormed};
    }
    low = 0x80;
    high = 0xBF;
  }
  return {static_cast<size_t>(lead.num_following) + 1, Utf8Kind::kCharacter};
}

size_t WellFormedPrefix(std::string_view text) {
  size_t pos = 0;
  while (pos < text.size()) {
    pos += AsciiPrefix(text.substr(pos));
    if (pos == text.size()) {
      break;
    }
    const Utf8Step step = NextUtf8(text.substr(pos));
    if (step.kind != Utf8Kind::kCharacter) {
      return pos;
    }
    pos += step.num_bytes;
  }
  return pos;
}

std::string ReplaceIllFormed(std::string_view text) {
  std::string pending(text);
  std::string result;
  result.reserve(text.size());
  DrainDecided(&pending, &result);
  if (!pending.empty()) {
    result += kReplacementCharacter;
  }
  return result;
}

void DrainDecided(std::string* pending, std::string* text) {
  std::string_view rest = *pending;
  while (!rest.empty()) {
    const size_t well_formed = WellFormedPrefix(rest);
    text->append(rest.substr(0, well_formed));
    rest.remove_prefix(well_formed);
    if (rest.empty()) {
      break;
    }
    const Utf8Step step = NextUtf8(rest);
    if (step.kind == Utf8Kind::kTruncated) {
      break;
    }
    text->append(kReplacementCharacter);
    rest.remove_prefix(step.num_bytes);
  }
  pending->erase(0, pending->size() - rest.size());
}

void AppendUtf8(uint32_t code_point, std::string* text) {
  const auto put = [text](uint32_t byte) { text->push_back(static_cast<char>(byte)); };
  if (code_point < 0x80) {
    put(code_point);
  } else if (code_point < 0x800) {
    put(0xC0 | (code_point >> 6));
    put(0x80 | (code_point & 0x3F));
  } else if (code_point < 0x10000) {
    put(0xE0 | (code_point >> 12));
    put(0x80 | ((code_point >> 6) & 0x3F));
    put(0x80 | (code_point & 0x3F));
  } else {
    put(0xF0 | (code_point >> 18));
    put(0x80 | ((code_point >> 12) & 0x3F));
    put(0x80 | ((code_point >> 6) & 0x3F));
    put(0x80 | (code_point & 0x3F));
  }
}

}  // namespace tessera::model
