#include "tests/testing/self_signed.h"

#include <cstdio>

#include "gtest/gtest.h"

#include "openssl/ec.h"
#include "openssl/evp.h"
#include "openssl/pem.h"
#include "openssl/x509.h"
#include "openssl/x509v3.h"

namespace tessera::tests {
namespace {

constexpr long kLifeSeconds = 3600;

void AddExtension(X509* certificate, int kind, const char* value) {
  X509_EXTENSION* extension = X509V3_EXT_conf_nid(nullptr, nullptr, kind, value);
  ASSERT_NE(extension, nullptr);
  X509_add_ext(certificate, extension, -1);
  X509_EXTENSION_free(extension);
}

X509* MakeCertificate(EVP_PKEY* key, long serial) {
  X509* certificate = X509_new();
  X509_set_version(certificate, 2);
  ASN1_INTEGER_set(X509_get_serialNumber(certificate), serial);
  X509_gmtime_adj(X509_getm_notBefore(certificate), -kLifeSeconds);
  X509_gmtime_adj(X509_getm_notAfter(certificate), kLifeSeconds);
  X509_set_pubkey(certificate, key);
  X509_NAME* name = X509_get_subject_name(certificate);
  X509_NAME_add_entry_by_txt(name, "CN", MBSTRING_ASC,
                             reinterpret_cast<const unsigned char*>("localhost"), -1, -1,
                             0);
  X509_set_issuer_name(certificate, name);
  AddExtension(certificate, NID_basic_constraints, "critical,CA:TRUE");
  AddExtension(certificate, NID_subject_alt_name, "DNS:localhost,IP:127.0.0.1");
  EXPECT_NE(X509_sign(certificate, key, EVP_sha256()), 0);
  return certificate;
}

template <typename Write>
void WritePem(const std::string& path, Write write) {
  std::FILE* file = std::fopen(path.c_str(), "w");
  ASSERT_NE(file, nullptr) << path;
  EXPECT_EQ(write(file), 1) << path;
  EXPECT_EQ(std::fclose(file), 0) << path;
}

}  // namespace

SelfSigned MakeSelfSigned(const std::string& name, long serial) {
  const SelfSigned files{testing::TempDir() + name + ".pem",
                         testing::TempDir() + name + ".key"};
  EVP_PKEY* key = EVP_EC_gen("P-256");
  if (key == nullptr) {
    ADD_FAILURE() << "openssl makes no key";
    return files;
  }
  X509* certificate = MakeCertificate(key, serial);
  WritePem(files.certificate_file,
           [&](std::FILE* file) { return PEM_write_X509(file, certificate); });
  WritePem(files.key_file, [&](std::FILE* file) {
    return PEM_write_PrivateKey(file, key, nullptr, nullptr, 0, nullptr, nullptr);
  });
  X509_free(certificate);
  EVP_PKEY_free(key);
  return files;
}

}  // namespace tessera::tests
