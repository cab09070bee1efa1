// EmbeddedFile: a text file of the repository inside the binary, put there by
// tessera_embedded_files of cmake/Targets.cmake.
#ifndef TESSERA_COMMON_EMBEDDED_FILE_H_
#define TESSERA_COMMON_EMBEDDED_FILE_H_

#include <string_view>

namespace tessera {

// Lives as long as the program.
struct EmbeddedFile {
  std::string_view name;  // without its folder
  std::string_view text;
};

}  // namespace tessera

#endif  // TESSERA_COMMON_EMBEDDED_FILE_H_
