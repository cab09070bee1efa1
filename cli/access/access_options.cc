#include "cli/access/access_options.h"

#include <utility>

#include "common/option_table.h"
#include "common/status.h"
#include "common/status_macros.h"
#include "coordinator/api/access/access_file.h"
#include "coordinator/api/access/api_keys.h"

namespace tessera::cli {
namespace {

bool IsLoopback(const std::string& host) {
  return host == "localhost" || host == "::1" || host.starts_with("127.");
}

absl::Status AddPlainKeys(const std::vector<std::string>& keys, coordinator::KeyRole role,
                          coordinator::AccessConfig* config) {
  for (const std::string& key : keys) {
    TESSERA_ASSIGN_OR_RETURN(coordinator::ApiKeyRecord record,
                             coordinator::RecordOfPlainKey(key, role));
    config->keys.push_back(std::move(record));
  }
  return absl::OkStatus();
}

}  // namespace

void AddAccessOptions(OptionTable* table, AccessOptions* options) {
  table
      ->Add("api-key", &options->api_key,
            "keys that clients must present; prefer TESSERA_API_KEY, since the command "
            "line is visible to other processes")
      .Secret();
  table
      ->Add("admin-api-key", &options->admin_api_key,
            "keys that may also use /admin; prefer TESSERA_ADMIN_API_KEY")
      .Secret();
  table->Add("api-key-file", &options->api_key_file,
             "hashed keys, tenants and their limits, a line each (`tessera key` prints "
             "one); read again on SIGHUP and when it changes");
  table
      ->Add("requests-per-minute", &options->requests_per_minute,
            "of a tenant without a line in the file; 0: no limit")
      .AtLeast(0);
  table
      ->Add("tokens-per-minute", &options->tokens_per_minute,
            "prompt and completion tokens of such a tenant; 0: no limit")
      .AtLeast(0);
  table
      ->Add("max-concurrent-requests", &options->max_concurrent_requests,
            "requests under way of such a tenant; 0: no limit")
      .AtLeast(0);
}

absl::StatusOr<coordinator::AccessConfig> LoadAccess(const AccessOptions& options) {
  coordinator::AccessConfig config;
  TESSERA_RETURN_IF_ERROR(
      AddPlainKeys(options.api_key, coordinator::KeyRole::kUser, &config));
  TESSERA_RETURN_IF_ERROR(
      AddPlainKeys(options.admin_api_key, coordinator::KeyRole::kAdmin, &config));
  if (!options.api_key_file.empty()) {
    TESSERA_RETURN_IF_ERROR(coordinator::ReadAccessFile(options.api_key_file, &config));
  }
  const bool by_flag = options.requests_per_minute > 0 || options.tokens_per_minute > 0 ||
                       options.max_concurrent_requests > 0;
  if (by_flag && !config.others.name.empty()) {
    return InvalidArgumentF(
        "{} has a line tenant *, and flags say the same: give the limits of other "
        "tenants once",
        options.api_key_file);
  }
  if (by_flag) {
    config.others.requests_per_minute = options.requests_per_minute;
    config.others.tokens_per_minute = options.tokens_per_minute;
    config.others.max_concurrent_requests = options.max_concurrent_requests;
  }
  return config;
}

absl::Status CheckExposure(const std::string& host, const AccessOptions& options) {
  TESSERA_ASSIGN_OR_RETURN(const coordinator::AccessConfig config, LoadAccess(options));
  if (!IsLoopback(host) && config.keys.empty()) {
    return InvalidArgumentF(
        "--host {} is reachable from outside; give --api-key (TESSERA_API_KEY) or "
        "--api-key-file with keys, or stay on 127.0.0.1",
        host);
  }
  return absl::OkStatus();
}

}  // namespace tessera::cli
