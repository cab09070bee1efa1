#include "coordinator/api/access/access_file.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstdint>
#include <limits>
#include <optional>
#include <set>
#include <utility>
#include <vector>

#include "absl/time/time.h"
#include "fmt/format.h"

#include "common/small_file.h"
#include "common/status.h"
#include "common/status_macros.h"

namespace tessera::coordinator {
namespace {

constexpr size_t kMaxNameBytes = 64;
// The share of the smallest beside the largest stays a number that scheduling can use.
constexpr double kMinWeight = 1e-3;
constexpr double kMaxWeight = 1e3;

// The words of a line, without what follows a #.
std::vector<std::string_view> WordsOf(std::string_view line) {
  line = line.substr(0, line.find('#'));
  std::vector<std::string_view> words;
  constexpr std::string_view kSpace = " \t\r";
  for (size_t at = line.find_first_not_of(kSpace); at != std::string_view::npos;
       at = line.find_first_not_of(kSpace, at)) {
    const size_t end = std::min(line.find_first_of(kSpace, at), line.size());
    words.push_back(line.substr(at, end - at));
    at = end;
  }
  return words;
}

struct Attribute {
  std::string_view name;
  std::string_view value;
};

absl::StatusOr<std::vector<Attribute>> AttributesOf(
    const std::vector<std::string_view>& words) {
  std::vector<Attribute> attributes;
  std::set<std::string_view> seen;
  for (size_t i = 2; i < words.size(); ++i) {
    const size_t equals = words[i].find('=');
    if (equals == std::string_view::npos || equals + 1 == words[i].size()) {
      return InvalidArgumentF("{} is not name=value", words[i]);
    }
    const Attribute attribute{words[i].substr(0, equals), words[i].substr(equals + 1)};
    if (!seen.insert(attribute.name).second) {
      return InvalidArgumentF("{} is given twice", attribute.name);
    }
    attributes.push_back(attribute);
  }
  return attributes;
}

absl::Status ReadCount(const Attribute& attribute, int64_t* out) {
  const char* const end = attribute.value.data() + attribute.value.size();
  int64_t number = 0;
  const auto [rest, error] = std::from_chars(attribute.value.data(), end, number);
  if (error != std::errc() || rest != end || number < 0) {
    return InvalidArgumentF("{} is {}, expected a whole number; 0 is no limit",
                            attribute.name, attribute.value);
  }
  *out = number;
  return absl::OkStatus();
}

absl::Status ReadWeight(const Attribute& attribute, double* out) {
  const char* const end = attribute.value.data() + attribute.value.size();
  double number = 0;
  const auto [rest, error] = std::from_chars(attribute.value.data(), end, number);
  if (error != std::errc() || rest != end || !(number >= kMinWeight) ||
      !(number <= kMaxWeight)) {
    return InvalidArgumentF("weight is {}, expected {} to {}", attribute.value,
                            kMinWeight, kMaxWeight);
  }
  *out = number;
  return absl::OkStatus();
}

absl::Status ReadPriority(const Attribute& attribute, int32_t* out) {
  const char* const end = attribute.value.data() + attribute.value.size();
  const auto [rest, error] = std::from_chars(attribute.value.data(), end, *out);
  if (error != std::errc() || rest != end) {
    return InvalidArgumentF("{} is {}, expected a whole number; lower runs first",
                            attribute.name, attribute.value);
  }
  return absl::OkStatus();
}

absl::Status ReadGrant(const Attribute& attribute, TenantPolicy* policy) {
  const std::pair<std::string_view, int64_t*> counts[] = {
      {"requests-per-minute", &policy->requests_per_minute},
      {"tokens-per-minute", &policy->tokens_per_minute},
      {"max-concurrent-requests", &policy->max_concurrent_requests},
      {"max-running-tokens", &policy->max_running_tokens},
      {"min-cached-blocks", &policy->min_cached_blocks},
  };
  for (const auto& [name, field] : counts) {
    if (attribute.name == name) {
      return ReadCount(attribute, field);
    }
  }
  if (attribute.name == "weight") {
    return ReadWeight(attribute, &policy->weight);
  }
  if (attribute.name == "best-priority") {
    return ReadPriority(attribute, &policy->best_priority);
  }
  return InvalidArgumentF(
      "a tenant has no {}, only weight, best-priority, requests-per-minute, "
      "tokens-per-minute, max-concurrent-requests, max-running-tokens and "
      "min-cached-blocks",
      attribute.name);
}

absl::Status ReadTenant(const std::vector<std::string_view>& words,
                        AccessConfig* config) {
  TenantPolicy policy;
  TESSERA_ASSIGN_OR_RETURN(const auto attributes, AttributesOf(words));
  for (const Attribute& attribute : attributes) {
    TESSERA_RETURN_IF_ERROR(ReadGrant(attribute, &policy));
  }
  if (words[1] == "*") {
    if (!config->others.name.empty()) {
      return absl::InvalidArgumentError("tenant * has two lines");
    }
    policy.name = "*";
    config->others = policy;
    return absl::OkStatus();
  }
  TESSERA_RETURN_IF_ERROR(CheckTenantName(words[1]));
  policy.name = std::string(words[1]);
  for (const TenantPolicy& other : config->tenants) {
    if (other.name == policy.name) {
      return InvalidArgumentF("tenant {} has two lines", policy.name);
    }
  }
  config->tenants.push_back(std::move(policy));
  return absl::OkStatus();
}

// A day means its first moment in UTC.
std::optional<absl::Time> ReadTime(std::string_view text) {
  absl::Time time;
  std::string ignored;
  const std::string value(text);
  for (const char* format : {"%Y-%m-%d", "%Y-%m-%dT%H:%M:%SZ"}) {
    if (absl::ParseTime(format, value, absl::UTCTimeZone(), &time, &ignored)) {
      return time;
    }
  }
  return std::nullopt;
}

absl::Status ReadKeyAttribute(const Attribute& attribute, ApiKeyRecord* record) {
  if (attribute.name == "tenant") {
    record->info.tenant = std::string(attribute.value);
    return CheckTenantName(attribute.value);
  }
  if (attribute.name == "name") {
    record->info.name = std::string(attribute.value);
    return attribute.value.size() <= kMaxNameBytes
               ? absl::OkStatus()
               : InvalidArgumentF("name of {} bytes, expected at most {}",
                                  attribute.value.size(), kMaxNameBytes);
  }
  if (attribute.name == "role") {
    record->info.role = attribute.value == "admin" ? KeyRole::kAdmin : KeyRole::kUser;
    return attribute.value == "admin" || attribute.value == "user"
               ? absl::OkStatus()
               : InvalidArgumentF("role is {}, expected user or admin", attribute.value);
  }
  if (attribute.name == "expires") {
    const std::optional<absl::Time> time = ReadTime(attribute.value);
    record->expires = time.value_or(absl::InfiniteFuture());
    return time.has_value() ? absl::OkStatus()
                            : InvalidArgumentF(
                                  "expires is {}, expected 2027-06-30 or "
                                  "2027-06-30T12:00:00Z",
                                  attribute.value);
  }
  return InvalidArgumentF("a key has no {}, only tenant, name, role and expires",
                          attribute.name);
}

absl::Status ReadKey(const std::vector<std::string_view>& words, AccessConfig* config) {
  ApiKeyRecord record;
  TESSERA_ASSIGN_OR_RETURN(record.digest, ParseKeyDigest(words[1]));
  TESSERA_ASSIGN_OR_RETURN(const auto attributes, AttributesOf(words));
  for (const Attribute& attribute : attributes) {
    TESSERA_RETURN_IF_ERROR(ReadKeyAttribute(attribute, &record));
  }
  if (record.info.tenant.empty()) {
    return absl::InvalidArgumentError("a key needs tenant=NAME");
  }
  config->keys.push_back(std::move(record));
  return absl::OkStatus();
}

absl::Status ReadLine(std::string_view line, AccessConfig* config) {
  const std::vector<std::string_view> words = WordsOf(line);
  if (words.empty()) {
    return absl::OkStatus();
  }
  if (words.size() < 2 || (words[0] != "tenant" && words[0] != "key")) {
    // The first word may be a key in clear, which no message repeats.
    return absl::InvalidArgumentError("a line starts with tenant NAME or key sha256:…");
  }
  return words[0] == "tenant" ? ReadTenant(words, config) : ReadKey(words, config);
}

}  // namespace

absl::Status CheckTenantName(std::string_view name) {
  const bool sane = !name.empty() && name.size() <= kMaxNameBytes &&
                    std::all_of(name.begin(), name.end(), [](char c) {
                      return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
                             (c >= '0' && c <= '9') || c == '.' || c == '_' || c == '-';
                    });
  return sane ? absl::OkStatus()
              : absl::InvalidArgumentError(
                    "a tenant's name has 1 to 64 of A-Z a-z 0-9 . _ and -");
}

absl::Status ParseAccessText(std::string_view text, AccessConfig* config) {
  for (int number = 1; !text.empty(); ++number) {
    const size_t end = std::min(text.find('\n'), text.size());
    const absl::Status status = ReadLine(text.substr(0, end), config);
    if (!status.ok()) {
      return WithContext(status, fmt::format("line {}", number));
    }
    text.remove_prefix(std::min(end + 1, text.size()));
  }
  return absl::OkStatus();
}

absl::Status ReadAccessFile(const std::string& path, AccessConfig* config) {
  TESSERA_ASSIGN_OR_RETURN(const std::string text, ReadSmallFile(path, "an access file"));
  const absl::Status status = ParseAccessText(text, config);
  return status.ok() ? status : WithContext(status, path);
}

std::string AccessLineOf(const ApiKeyRecord& record) {
  std::string line =
      fmt::format("key {} tenant={}", ShowKeyDigest(record.digest), record.info.tenant);
  if (!record.info.name.empty()) {
    line += " name=" + record.info.name;
  }
  if (record.info.role == KeyRole::kAdmin) {
    line += " role=admin";
  }
  if (record.expires != absl::InfiniteFuture()) {
    line += " expires=" +
            absl::FormatTime("%Y-%m-%dT%H:%M:%SZ", record.expires, absl::UTCTimeZone());
  }
  return line;
}

}  // namespace tessera::coordinator
