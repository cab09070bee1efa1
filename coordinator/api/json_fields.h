// JSON of request bodies: a parser bounded in depth, and JsonFields, which reads typed
// fields out of an object and remembers the first that is wrong. Exceptions of the JSON
// library end here.
#ifndef TESSERA_COORDINATOR_API_JSON_FIELDS_H_
#define TESSERA_COORDINATOR_API_JSON_FIELDS_H_

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "nlohmann/json_fwd.hpp"

#include "coordinator/requests/validated_request.h"

namespace tessera::coordinator {

// Parses one JSON object. kInvalidArgument: not JSON, not UTF-8, a number beyond double,
// not an object, or nested deeper than `max_depth`; the depth is checked before anything
// is built. kResourceExhausted: out of memory. Messages hold no text of the body or of
// the library.
absl::StatusOr<nlohmann::json> ParseJsonObject(std::string_view text, int max_depth);

// One line of JSON; invalid UTF-8 becomes U+FFFD.
std::string DumpJson(const nlohmann::json& value);

// Typed access to the members of one object. A member that is absent or null gives
// nullopt or nullptr; one of a wrong type does too, and is the error. Only the first
// error is kept. External synchronisation; object and error must outlive it.
class JsonFields {
 public:
  // `object` must be a JSON object. `prefix` stands before field names in errors
  // ("messages[0].").
  JsonFields(const nlohmann::json& object, FieldError* error, std::string prefix = "");

  bool ok() const { return error_->status.ok(); }

  // Present and not null.
  bool Has(std::string_view name) const;

  std::optional<bool> Bool(std::string_view name);
  // Whole numbers, also spelled as 16.0. Values beyond int64 saturate, so that the range
  // check of the validator refuses them.
  std::optional<int64_t> Integer(std::string_view name);
  std::optional<double> Number(std::string_view name);
  std::optional<std::string> String(std::string_view name);
  const nlohmann::json* Array(std::string_view name);
  const nlohmann::json* Object(std::string_view name);

  // An array of token ids, at most `max_count`. Ids beyond int32 saturate.
  std::optional<std::vector<int32_t>> TokenIds(std::string_view name, size_t max_count);

  // Makes `name` the field in error, unless there is one already.
  void Fail(std::string_view name, std::string message, std::string_view code = "");

 private:
  const nlohmann::json* Find(std::string_view name) const;
  void FailType(std::string_view name, std::string_view expected,
                const nlohmann::json& value);

  const nlohmann::json& object_;
  FieldError* error_;
  std::string prefix_;
};

// A whole number as int64, saturating; nullopt for anything else.
std::optional<int64_t> JsonInteger(const nlohmann::json& value);

// Fills `out` from an array of whole numbers; false if an element is something else.
bool ReadTokenIds(const nlohmann::json& array, std::vector<int32_t>* out);

}  // namespace tessera::coordinator

#endif  // TESSERA_COORDINATOR_API_JSON_FIELDS_H_
