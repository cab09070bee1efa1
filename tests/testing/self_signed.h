// SelfSigned: a certificate for 127.0.0.1 and localhost with its key, made anew and
// written as PEM into the test's own folder. Good for an hour.
#ifndef TESSERA_TESTS_TESTING_SELF_SIGNED_H_
#define TESSERA_TESTS_TESTING_SELF_SIGNED_H_

#include <string>

namespace tessera::tests {

struct SelfSigned {
  std::string certificate_file;
  std::string key_file;
};

// Files `name`.pem and `name`.key; a second call with that name replaces them. Fails the
// test where OpenSSL or the file system does not play along.
SelfSigned MakeSelfSigned(const std::string& name, long serial = 1);

}  // namespace tessera::tests

#endif  // TESSERA_TESTS_TESTING_SELF_SIGNED_H_
