#include "coordinator/api/json/ordered_json.h"

#include <cstddef>
#include <string>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "nlohmann/json.hpp"

namespace tessera::coordinator {
namespace {

using Json = nlohmann::ordered_json;

// Builds the document event by event. An object is made when all its members are known:
// they are pairs with constant keys, which a growing array would copy with all they hold.
class OrderedReader final : public nlohmann::json_sax<Json> {
 public:
  Json TakeRoot() { return std::move(root_); }

  bool null() override { return Place(nullptr); }
  bool boolean(bool value) override { return Place(value); }
  bool number_integer(number_integer_t value) override { return Place(value); }
  bool number_unsigned(number_unsigned_t value) override { return Place(value); }
  bool number_float(number_float_t value, const string_t& /*text*/) override {
    return Place(value);
  }
  bool string(string_t& value) override { return Place(std::move(value)); }
  bool binary(binary_t& /*value*/) override { return false; }
  bool start_object(std::size_t /*elements*/) override { return Open(true); }
  bool start_array(std::size_t /*elements*/) override { return Open(false); }
  bool key(string_t& key) override {
    open_.back().key = std::move(key);
    return true;
  }
  bool end_object() override {
    OpenValue closed = TakeLast();
    Json::object_t members;
    members.reserve(closed.values.size());
    for (size_t i = 0; i < closed.values.size(); ++i) {
      members.emplace_back(std::move(closed.keys[i]), std::move(closed.values[i]));
    }
    return Place(std::move(members));
  }
  bool end_array() override { return Place(std::move(TakeLast().values)); }
  bool parse_error(std::size_t /*position*/, const std::string& /*token*/,
                   const nlohmann::json::exception& /*error*/) override {
    return false;
  }

 private:
  struct OpenValue {
    bool is_object = false;
    std::string key;                // of the member that comes next
    std::vector<std::string> keys;  // of an object, one per value
    std::vector<Json> values;
    absl::flat_hash_map<std::string, size_t> index_of;
  };

  bool Open(bool is_object) {
    open_.emplace_back();
    open_.back().is_object = is_object;
    return true;
  }

  OpenValue TakeLast() {
    OpenValue closed = std::move(open_.back());
    open_.pop_back();
    return closed;
  }

  bool Place(Json value) {
    if (open_.empty()) {
      root_ = std::move(value);
      return true;
    }
    OpenValue& parent = open_.back();
    if (parent.is_object) {
      const auto [known, is_new] =
          parent.index_of.emplace(parent.key, parent.values.size());
      if (!is_new) {
        parent.values[known->second] = std::move(value);
        return true;
      }
      parent.keys.push_back(std::move(parent.key));
    }
    parent.values.push_back(std::move(value));
    return true;
  }

  Json root_;
  std::vector<OpenValue> open_;
};

}  // namespace

Json ParseOrderedJson(std::string_view text) {
  OrderedReader reader;
  if (!Json::sax_parse(text.begin(), text.end(), &reader)) {
    return nullptr;
  }
  return reader.TakeRoot();
}

}  // namespace tessera::coordinator
