// The access file (--api-key-file): tenants with their grants, and hashed keys with their
// owners. One entry per line, so that a new key is a line appended:
//
//   # comments and empty lines are skipped
//   tenant team-a weight=2 requests-per-minute=600 tokens-per-minute=200000
//   tenant *      requests-per-minute=60
//   key sha256:<64 hex digits> tenant=team-a name=laptop expires=2027-06-30
//   key sha256:<64 hex digits> tenant=ops role=admin
//
// `tenant *` holds for every tenant without a line. A key may name a tenant that has no
// line. docs/operations/access.md explains it to operators.
#ifndef TESSERA_COORDINATOR_API_ACCESS_ACCESS_FILE_H_
#define TESSERA_COORDINATOR_API_ACCESS_ACCESS_FILE_H_

#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

#include "coordinator/api/access/access_config.h"

namespace tessera::coordinator {

// A tenant's name: 1 to 64 of A-Z a-z 0-9 . _ and -. kInvalidArgument: anything else.
absl::Status CheckTenantName(std::string_view name);

// Adds what `text` says to `config`. kInvalidArgument, with the line's number: an unknown
// word or attribute, one given twice, a number out of range, a tenant with two lines, a
// key in clear. `config` is then of no use.
absl::Status ParseAccessText(std::string_view text, AccessConfig* config);

// The same of the file at `path`. kNotFound: it cannot be read; kInvalidArgument also for
// more than 1 MiB.
absl::Status ReadAccessFile(const std::string& path, AccessConfig* config);

// The line of one key, as the parser takes it. `expires`: InfiniteFuture is left out.
std::string AccessLineOf(const ApiKeyRecord& record);

}  // namespace tessera::coordinator

#endif  // TESSERA_COORDINATOR_API_ACCESS_ACCESS_FILE_H_
