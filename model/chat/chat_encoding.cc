#include "model/chat/chat_encoding.h"

#include <array>

#include "common/status.h"
#include "model/chat/encoding_generation.h"
#include "model/chat/v4_encoding.h"

namespace tessera::model {
namespace {

// Which generation the checkpoints of a family were trained with.
struct FamilyEncoding {
  std::string_view family;
  const EncodingGeneration* generation;
};
constexpr std::array<FamilyEncoding, 1> kFamilyEncodings = {{
    {"v4_mla", &kV4Preview},
}};

}  // namespace

absl::StatusOr<std::unique_ptr<ChatEncoding>> ChatEncoding::Create(
    const ModelConfig& config, const Tokenizer* tokenizer) {
  for (const FamilyEncoding& entry : kFamilyEncodings) {
    if (entry.family == config.family) {
      return CreateV4Encoding(*entry.generation, tokenizer);
    }
  }
  return StatusF(absl::StatusCode::kUnimplemented, "no chat encoding for family `{}`",
                 config.family);
}

}  // namespace tessera::model
