// TlsFlags: the --ssl-* flags, named and meant as in vLLM.
#ifndef TESSERA_CLI_ACCESS_TLS_OPTIONS_H_
#define TESSERA_CLI_ACCESS_TLS_OPTIONS_H_

#include <string>

#include "absl/status/statusor.h"

#include "common/option_table.h"
#include "coordinator/api/http/tls_options.h"

namespace tessera::cli {

struct TlsFlags {
  std::string ssl_certfile;
  std::string ssl_keyfile;
  std::string ssl_ca_certs;
  std::string ssl_cert_reqs = "0";

  bool on() const { return !ssl_certfile.empty(); }
};

// Adds them to `table` under the heading in force; `flags` must outlive it.
void AddTlsFlags(OptionTable* table, TlsFlags* flags);

// What they ask for. kInvalidArgument: a key without a certificate or the reverse, an
// authority that nobody checks against, a check without an authority. Reads no file. Call
// it also where TLS is off: flags that would then do nothing are refused.
absl::StatusOr<coordinator::TlsOptions> TlsOptionsOf(const TlsFlags& flags);

}  // namespace tessera::cli

#endif  // TESSERA_CLI_ACCESS_TLS_OPTIONS_H_
