#include "model/config/strict_json.h"

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "nlohmann/json.hpp"

#include "common/status.h"

namespace tessera::model {
namespace {

using Json = nlohmann::json;

// Builds the document event by event, so that depth and duplicates are seen as they come.
// Open containers are kept by value: no pointer into a growing array is held.
class StrictReader final : public nlohmann::json_sax<Json> {
 public:
  explicit StrictReader(size_t max_depth) : max_depth_(max_depth) {}

  const absl::Status& status() const { return status_; }
  Json TakeRoot() { return std::move(root_); }

  bool null() override { return Place(nullptr); }
  bool boolean(bool value) override { return Place(value); }
  bool number_integer(number_integer_t value) override { return Place(value); }
  bool number_unsigned(number_unsigned_t value) override { return Place(value); }
  bool number_float(number_float_t value, const string_t& /*text*/) override {
    return Place(value);
  }
  bool string(string_t& value) override { return Place(std::move(value)); }
  bool binary(binary_t& /*value*/) override { return Fail("binary values are not json"); }
  bool start_object(std::size_t /*elements*/) override { return Open(Json::object()); }
  bool start_array(std::size_t /*elements*/) override { return Open(Json::array()); }
  bool end_object() override { return Close(); }
  bool end_array() override { return Close(); }
  bool key(string_t& key) override {
    Frame& frame = stack_.back();
    if (frame.value.contains(key)) {
      return Fail(fmt::format("the key \"{}\" occurs twice", key.substr(0, 100)));
    }
    frame.key = std::move(key);
    return true;
  }
  bool parse_error(std::size_t position, const std::string& /*token*/,
                   const nlohmann::json::exception& /*error*/) override {
    return Fail(fmt::format("not valid json at byte {}", position));
  }

 private:
  struct Frame {
    Json value;
    std::string key;  // of the member that comes next, in objects
  };

  bool Fail(const std::string& what) {
    status_ = InvalidArgumentF("{}", what);
    return false;
  }
  bool Open(Json container) {
    if (stack_.size() == max_depth_) {
      return Fail(fmt::format("nested deeper than {} levels", max_depth_));
    }
    stack_.push_back({std::move(container), {}});
    return true;
  }
  bool Close() {
    Json value = std::move(stack_.back().value);
    stack_.pop_back();
    return Place(std::move(value));
  }
  bool Place(Json value) {
    if (stack_.empty()) {
      root_ = std::move(value);
    } else if (stack_.back().value.is_array()) {
      stack_.back().value.push_back(std::move(value));
    } else {
      stack_.back().value[stack_.back().key] = std::move(value);
    }
    return true;
  }

  const size_t max_depth_;
  absl::Status status_;
  std::vector<Frame> stack_;
  Json root_;
};

}  // namespace

absl::StatusOr<Json> ParseStrictJson(std::string_view text,
                                     const StrictJsonLimits& limits) {
  if (text.size() > limits.bytes) {
    return InvalidArgumentF("{} bytes of json, expected at most {}", text.size(),
                            limits.bytes);
  }
  StrictReader reader(limits.depth);
  if (!Json::sax_parse(text.begin(), text.end(), &reader)) {
    return reader.status();
  }
  return reader.TakeRoot();
}

absl::StatusOr<std::string> ReadSmallFile(const std::string& path, size_t max_bytes) {
  std::error_code error;
  const std::filesystem::file_status status = std::filesystem::status(path, error);
  if (status.type() == std::filesystem::file_type::not_found) {
    return StatusF(absl::StatusCode::kNotFound, "{} does not exist", path);
  }
  if (status.type() != std::filesystem::file_type::regular) {
    return InvalidArgumentF("{} is not a regular file", path);
  }
  const uintmax_t bytes = std::filesystem::file_size(path, error);
  if (error || bytes > max_bytes) {
    return InvalidArgumentF("{} cannot be measured or is longer than {} bytes", path,
                            max_bytes);
  }
  std::string text(static_cast<size_t>(bytes), '\0');
  std::ifstream in(path, std::ios::binary);
  if (!in.read(text.data(), static_cast<std::streamsize>(text.size()))) {
    return InvalidArgumentF("cannot read {}", path);
  }
  return text;
}

}  // namespace tessera::model
