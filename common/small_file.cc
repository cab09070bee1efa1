#include "common/small_file.h"

#include <fstream>

#include "fmt/format.h"

#include "common/status.h"

namespace tessera {

absl::StatusOr<std::string> ReadSmallFile(const std::string& path,
                                          std::string_view kind) {
  std::ifstream file(path, std::ios::binary);
  if (!file) {
    return absl::NotFoundError(fmt::format("cannot open {}", path));
  }
  std::string text(kMaxSmallFileBytes + 1, '\0');
  file.read(text.data(), static_cast<std::streamsize>(text.size()));
  if (file.bad()) {
    return absl::NotFoundError(fmt::format("cannot read {}", path));
  }
  text.resize(static_cast<size_t>(file.gcount()));
  if (text.size() > kMaxSmallFileBytes) {
    return InvalidArgumentF("{} is over {} bytes, too large for {}", path,
                            kMaxSmallFileBytes, kind);
  }
  return text;
}

}  // namespace tessera
