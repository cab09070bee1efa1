// What this binary is: for `tessera --version`, /version and system_fingerprint.
#ifndef TESSERA_COMMON_BUILD_INFO_H_
#define TESSERA_COMMON_BUILD_INFO_H_

#include <string_view>

namespace tessera {

// The project's version, as "0.1.0".
std::string_view Version();

// The compiler that built it, as "GNU 12.2.0" or "Clang 14.0.6".
std::string_view Compiler();

}  // namespace tessera

#endif  // TESSERA_COMMON_BUILD_INFO_H_
