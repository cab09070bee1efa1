#include "cli/access/tls_options.h"

#include "common/status.h"

namespace tessera::cli {

using coordinator::ClientCertificates;

void AddTlsFlags(OptionTable* table, TlsFlags* flags) {
  table->Add("ssl-certfile", &flags->ssl_certfile,
             "PEM certificate (chain): HTTP and gRPC then speak TLS 1.2 and 1.3 only; "
             "read again on SIGHUP and when it changes");
  table->Add("ssl-keyfile", &flags->ssl_keyfile, "its PEM key, without a passphrase");
  table->Add("ssl-ca-certs", &flags->ssl_ca_certs,
             "PEM certificates of the authorities that sign clients' certificates");
  table
      ->Add("ssl-cert-reqs", &flags->ssl_cert_reqs,
            "certificates of clients: 0 or none, 1 or optional, 2 or required")
      .OneOf({"0", "1", "2", "none", "optional", "required"});
}

absl::StatusOr<coordinator::TlsOptions> TlsOptionsOf(const TlsFlags& flags) {
  coordinator::TlsOptions options;
  options.certificate_file = flags.ssl_certfile;
  options.key_file = flags.ssl_keyfile;
  options.client_ca_file = flags.ssl_ca_certs;
  const std::string& wanted = flags.ssl_cert_reqs;
  options.client_certificates =
      wanted == "2" || wanted == "required"   ? ClientCertificates::kRequired
      : wanted == "1" || wanted == "optional" ? ClientCertificates::kOptional
                                              : ClientCertificates::kNone;
  if (options.certificate_file.empty() != options.key_file.empty()) {
    return absl::InvalidArgumentError(
        "--ssl-certfile and --ssl-keyfile are given together or not at all");
  }
  const bool checks = options.client_certificates != ClientCertificates::kNone;
  if (checks != !options.client_ca_file.empty()) {
    return InvalidArgumentF(
        "--ssl-cert-reqs {} {} --ssl-ca-certs: clients' certificates are checked "
        "against authorities",
        wanted, checks ? "without" : "with");
  }
  if (checks && !flags.on()) {
    return absl::InvalidArgumentError("--ssl-cert-reqs without --ssl-certfile");
  }
  return options;
}

}  // namespace tessera::cli
