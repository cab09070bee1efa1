// tessera key: makes an API key. The key goes to standard output, for its user; the line
// that a server's access file needs holds its hash alone and can be appended to the file
// at once.
#include <fstream>
#include <iostream>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "cli/subcommand.h"

#include "common/clock.h"
#include "common/option_table.h"
#include "common/status.h"
#include "common/status_macros.h"
#include "coordinator/api/access/access_file.h"
#include "coordinator/api/access/api_keys.h"

namespace tessera::cli {
namespace {

struct KeyOptions {
  std::string tenant = "default";
  std::string name;
  bool admin = false;
  std::optional<int> days;
  std::string append;
  bool hash_stdin = false;
};

absl::StatusOr<std::string> KeyToHash(const KeyOptions& options) {
  if (!options.hash_stdin) {
    return coordinator::NewApiKey();
  }
  std::string key;
  std::getline(std::cin, key);
  return key;
}

absl::Status Append(const std::string& path, const std::string& line) {
  std::ofstream file(path, std::ios::app);
  file << line << "\n";
  file.close();
  return file ? absl::OkStatus()
              : absl::NotFoundError(fmt::format("cannot append to {}", path));
}

absl::Status MakeKey(const KeyOptions& options) {
  TESSERA_RETURN_IF_ERROR(coordinator::CheckTenantName(options.tenant));
  TESSERA_ASSIGN_OR_RETURN(const std::string key, KeyToHash(options));
  const auto role =
      options.admin ? coordinator::KeyRole::kAdmin : coordinator::KeyRole::kUser;
  TESSERA_ASSIGN_OR_RETURN(coordinator::ApiKeyRecord record,
                           coordinator::RecordOfPlainKey(key, role));
  record.info.tenant = options.tenant;
  record.info.name = options.name;
  if (options.days.has_value()) {
    record.expires = Clock::Real()->Now() + absl::Hours(24) * *options.days;
  }
  const std::string line = coordinator::AccessLineOf(record);
  // What the line says must read back: a name with a space would not.
  coordinator::AccessConfig check;
  TESSERA_RETURN_IF_ERROR(coordinator::ParseAccessText(line, &check));
  if (check.keys.size() != 1 || check.keys.front().info != record.info) {
    return InvalidArgumentF("name {} has characters that a line cannot hold",
                            options.name);
  }
  if (!options.append.empty()) {
    TESSERA_RETURN_IF_ERROR(Append(options.append, line));
  }
  if (!options.hash_stdin) {
    std::cout << key << "\n";
  }
  if (options.append.empty()) {
    std::cout << line << "\n";
  }
  std::cout.flush();
  return absl::OkStatus();
}

}  // namespace

absl::Status RunKey(Arguments arguments) {
  KeyOptions options;
  OptionTable table("key",
                    "Makes an API key and its line for --api-key-file, which holds the "
                    "key's hash only. The key is shown this once.");
  table.Add("tenant", &options.tenant, "whose key it is");
  table.Add("name", &options.name, "for people: who or what uses it");
  table.Add("admin", &options.admin, "the key may use /admin");
  table.Add("days", &options.days, "until it expires; default: never").Range(1, 36500);
  table.Add("append", &options.append,
            "access file that gets the line; default: print it");
  table.Add("hash-stdin", &options.hash_stdin,
            "hash the key on the first line of standard input instead of making one");
  TESSERA_ASSIGN_OR_RETURN(const bool go_on, ParseOptions(&table, arguments));
  return go_on ? MakeKey(options) : absl::OkStatus();
}

}  // namespace tessera::cli
