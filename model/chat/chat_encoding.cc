#include "model/chat/chat_encoding.h"

#include "common/status.h"
#include "model/chat/call_format.h"
#include "model/chat/control_tokens.h"
#include "model/chat/encoding_generation.h"
#include "model/chat/v32_encoding.h"
#include "model/chat/v3_encoding.h"
#include "model/chat/v4_encoding.h"

namespace tessera::model {
namespace {

using CreatedEncoding = absl::StatusOr<std::unique_ptr<ChatEncoding>>;

template <const CallFormat& kFormat>
CreatedEncoding CreateV3(const Tokenizer* tokenizer) {
  return CreateV3Encoding(kFormat, tokenizer);
}

CreatedEncoding CreateV32(const Tokenizer* tokenizer) {
  return CreateV32Encoding(kV32, tokenizer);
}

template <const EncodingGeneration& kGeneration>
CreatedEncoding CreateV4(const Tokenizer* tokenizer) {
  return CreateV4Encoding(kGeneration, tokenizer);
}

// Which generation a checkpoint was trained with: the first row counts whose family is
// that of the config and whose marks are there.
struct EncodingRow {
  std::string_view family;
  std::string_view token;  // the tokenizer must have it; "": any
  bool needs_dspark;       // the config must draft with DSpark
  CreatedEncoding (*create)(const Tokenizer* tokenizer);
};
constexpr EncodingRow kEncodingRows[] = {
    // V3.1 alone has search tokens, R1 and V3.1 have <think>; the configs are alike.
    {"v3", kSearchBeginToken, false, &CreateV3<kV31Format>},
    {"v3", kThinkToken, false, &CreateV3<kR1Format>},
    {"v3", "", false, &CreateV3<kV3Format>},
    {"v3.2", "", false, &CreateV32},
    // V4-Flash-0731 is V4 with a DSpark draft.
    {"v4", "", true, &CreateV4<kV4July>},
    {"v4", "", false, &CreateV4<kV4Preview>},
    {"v4.1", "", false, &CreateV4<kV41>},
    {"v4_mla", "", false, &CreateV4<kV4Preview>},
};

}  // namespace

CreatedEncoding ChatEncoding::Create(const ModelConfig& config,
                                     const Tokenizer* tokenizer) {
  for (const EncodingRow& row : kEncodingRows) {
    const bool has_token = row.token.empty() || tokenizer->TokenId(row.token).has_value();
    const bool has_draft = !row.needs_dspark || config.draft == DraftKind::kDspark;
    if (row.family == config.family && has_token && has_draft) {
      return row.create(tokenizer);
    }
  }
  return StatusF(absl::StatusCode::kUnimplemented, "no chat encoding for family `{}`",
                 config.family);
}

}  // namespace tessera::model
