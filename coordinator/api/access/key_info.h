// KeyInfo: who a request comes from, as its API key says. The door that authenticated the
// request fills it; nothing in a body can change it.
#ifndef TESSERA_COORDINATOR_API_ACCESS_KEY_INFO_H_
#define TESSERA_COORDINATOR_API_ACCESS_KEY_INFO_H_

#include <string>

namespace tessera::coordinator {

// What a key may do: kUser everything that generates and reads, kAdmin /admin as well.
enum class KeyRole { kUser, kAdmin };

struct KeyInfo {
  std::string tenant;  // "" where no keys are configured
  std::string name;    // for people and logs: "laptop"; may be empty
  KeyRole role = KeyRole::kUser;

  bool operator==(const KeyInfo&) const = default;
};

}  // namespace tessera::coordinator

#endif  // TESSERA_COORDINATOR_API_ACCESS_KEY_INFO_H_
