// JSON as Python's json module reads and writes it: what the prompts of the chat
// encodings are made of. Key order is kept, separators are ", " and ": ", text stays as
// it is (no \u escapes), and numbers print as Python prints them (1.0, 1e-05, integers of
// any length). A general JSON library would round or reformat them, and the prompt would
// differ from what the weights were trained on.
#ifndef TESSERA_MODEL_CHAT_PYTHON_JSON_H_
#define TESSERA_MODEL_CHAT_PYTHON_JSON_H_

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"

namespace tessera::model {

// One JSON value; a plain tree that owns its parts.
struct PythonJson {
  enum class Kind { kNull, kTrue, kFalse, kNumber, kString, kArray, kObject };

  // Reads one JSON document. kInvalidArgument: not JSON, nested deeper than 100 levels, a
  // number outside the range of a double, an integer of more than 4300 digits. Of equal
  // keys in one object the last value counts, at the place of the first.
  static absl::StatusOr<PythonJson> Parse(std::string_view text);

  // `json.dumps(value, ensure_ascii=False)`.
  std::string Dump() const;

  // The value under `key`, or null where this is no object or has no such key.
  const PythonJson* Find(std::string_view key) const;

  // Python's `bool(value)`: empty containers and strings, zero, false and null are false.
  bool IsTruthy() const;

  Kind kind = Kind::kNull;
  std::string text;               // kString: the characters; kNumber: as Python prints it
  std::vector<std::string> keys;  // kObject, one per item
  std::vector<PythonJson> items;  // kArray, kObject
};

// `text` as a JSON string with its quotes.
std::string PythonJsonString(std::string_view text);

// `repr(value)` of a finite double.
std::string PythonFloat(double value);

}  // namespace tessera::model

#endif  // TESSERA_MODEL_CHAT_PYTHON_JSON_H_
