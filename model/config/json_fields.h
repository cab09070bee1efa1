// JsonFields: typed, bounded reads of the members of one JSON object. The first fault is
// kept and later reads give fallbacks, so a parser reads all fields in a row and asks for
// the status once.
#ifndef TESSERA_MODEL_CONFIG_JSON_FIELDS_H_
#define TESSERA_MODEL_CONFIG_JSON_FIELDS_H_

#include <cstdint>
#include <initializer_list>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "nlohmann/json.hpp"

namespace tessera::model {

// Inclusive.
struct IntRange {
  int64_t min = 0;
  int64_t max = 0;
};
struct NumberRange {
  double min = 0;
  double max = 0;
};

// Borrows the object; not thread-safe. A member that is null counts as absent. Every
// fault is kInvalidArgument with the field, what was found and what was expected.
class JsonFields {
 public:
  // `prefix` goes in front of field names in messages: "rope_scaling." for a nested
  // object. A `json` that is no object is the first fault.
  explicit JsonFields(const nlohmann::json& json, std::string prefix = "");

  // Without a fallback the field is required. Numbers with a fraction or an exponent are
  // no integers; true and false are no numbers.
  int64_t Int(std::string_view name, IntRange range,
              std::optional<int64_t> fallback = std::nullopt);
  double Number(std::string_view name, NumberRange range,
                std::optional<double> fallback = std::nullopt);
  bool Bool(std::string_view name, std::optional<bool> fallback = std::nullopt);

  // The position in `allowed` of the field's text.
  size_t Choice(std::string_view name, std::initializer_list<std::string_view> allowed,
                std::optional<size_t> fallback = std::nullopt);

  // A list of integers, or one integer as a list of one where `or_single`; empty if
  // absent.
  struct ListLimits {
    IntRange values;
    size_t max_length = 0;
    bool or_single = false;
  };
  std::vector<int64_t> Ints(std::string_view name, const ListLimits& limits);

  bool Has(std::string_view name) const { return Find(name) != nullptr; }
  // nullptr if absent.
  const nlohmann::json* Find(std::string_view name) const;

  // The field must be absent, null, false or 0.
  void Refuse(std::string_view name, std::string_view why);
  // Members other than `known` are faults: for objects where a field that is not
  // understood could change results.
  void RefuseOthers(std::initializer_list<std::string_view> known);

  // Records a fault of a field that was read, unless one is there already.
  void Fault(std::string_view name, std::string_view what);

  const absl::Status& status() const { return status_; }

 private:
  // The member, or nullptr with a fault unless `optional`.
  const nlohmann::json* Require(std::string_view name, bool optional);
  std::optional<int64_t> ReadInt(std::string_view name, const nlohmann::json& value,
                                 IntRange range);

  const nlohmann::json& json_;
  const std::string prefix_;
  absl::Status status_;
};

}  // namespace tessera::model

#endif  // TESSERA_MODEL_CONFIG_JSON_FIELDS_H_
