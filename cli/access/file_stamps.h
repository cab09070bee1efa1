// FileStamps: notices that files were written anew or replaced, by looking at them.
// Mounted secrets change without a signal, and a look at a few files costs microseconds.
#ifndef TESSERA_CLI_ACCESS_FILE_STAMPS_H_
#define TESSERA_CLI_ACCESS_FILE_STAMPS_H_

#include <cstdint>
#include <string>
#include <vector>

namespace tessera::cli {

// External synchronisation.
class FileStamps {
 public:
  // Empty paths are left out. Takes the first look.
  explicit FileStamps(const std::vector<std::string>& paths);

  bool empty() const { return paths_.empty(); }

  // Whether any file is another one, or has other contents, than at the last look. A file
  // that is away for a moment, as while it is replaced, is no change until it is back.
  bool Changed();

 private:
  struct Stamp {
    uint64_t device = 0;
    uint64_t inode = 0;
    int64_t size = 0;
    int64_t seconds = 0;
    int64_t nanoseconds = 0;

    bool operator==(const Stamp&) const = default;
  };

  static bool Look(const std::string& path, Stamp* stamp);

  std::vector<std::string> paths_;
  std::vector<Stamp> stamps_;
};

}  // namespace tessera::cli

#endif  // TESSERA_CLI_ACCESS_FILE_STAMPS_H_
