// AccessOptions: which keys a server accepts and what each tenant may use: a few keys as
// flags, many in an access file. Shared by serve and coordinator.
#ifndef TESSERA_CLI_ACCESS_ACCESS_OPTIONS_H_
#define TESSERA_CLI_ACCESS_ACCESS_OPTIONS_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

#include "common/option_table.h"
#include "coordinator/api/access/access_config.h"

namespace tessera::cli {

struct AccessOptions {
  std::vector<std::string> api_key;
  std::vector<std::string> admin_api_key;
  std::string api_key_file;
  // Of tenants that the file does not name; 0: no limit.
  int64_t requests_per_minute = 0;
  int64_t tokens_per_minute = 0;
  int64_t max_concurrent_requests = 0;
};

// Adds them to `table` under the heading in force; `options` must outlive it.
void AddAccessOptions(OptionTable* table, AccessOptions* options);

// Flags and file as one. Reads the file anew at each call. kInvalidArgument, kNotFound: a
// key that no header can carry, a limit both as a flag and as `tenant *`, or what
// ReadAccessFile says.
absl::StatusOr<coordinator::AccessConfig> LoadAccess(const AccessOptions& options);

// kInvalidArgument: `host` is reachable from outside and nobody needs a key. Reads the
// access file, so that a mistake there is known before a model is loaded.
absl::Status CheckExposure(const std::string& host, const AccessOptions& options);

}  // namespace tessera::cli

#endif  // TESSERA_CLI_ACCESS_ACCESS_OPTIONS_H_
