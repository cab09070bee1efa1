#include "common/check.h"

#include <cstdlib>
#include <string>

#include "fmt/format.h"

namespace tessera::internal {

void CheckFailed(const char* file, int line, const char* expression,
                 const std::string& detail) {
  fmt::print(stderr, "{}:{}: check failed: {}{}{}\n", file, line, expression,
             detail.empty() ? "" : ": ", detail);
  std::abort();
}

}  // namespace tessera::internal
