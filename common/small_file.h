// ReadSmallFile: the whole text of a file that people write, such as options or keys. A
// checkpoint given by mistake is refused before much of it is read.
#ifndef TESSERA_COMMON_SMALL_FILE_H_
#define TESSERA_COMMON_SMALL_FILE_H_

#include <cstddef>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"

namespace tessera {

// Files of people have a few kilobytes.
inline constexpr size_t kMaxSmallFileBytes = size_t{1} << 20;

// kNotFound: it cannot be opened or read. kInvalidArgument: it is over
// kMaxSmallFileBytes, too large for `kind`, such as "an access file".
absl::StatusOr<std::string> ReadSmallFile(const std::string& path, std::string_view kind);

}  // namespace tessera

#endif  // TESSERA_COMMON_SMALL_FILE_H_
