// ScratchDirectory: a directory that belongs to one live process and to the programs that
// it starts, for files that those may leave behind when they are killed: the shared
// memory of an MPI job. A lock file in it tells whether its process lives; what dead
// processes left is removed when the next one comes.
#ifndef TESSERA_CLI_SCRATCH_DIRECTORY_H_
#define TESSERA_CLI_SCRATCH_DIRECTORY_H_

#include <memory>
#include <string>

#include "absl/status/statusor.h"

namespace tessera::cli {

// External synchronisation. Its destructor removes the directory and all that is in it.
class ScratchDirectory {
 public:
  // Removes this user's abandoned directories below `parent` and makes a new one, for
  // this user alone. kUnavailable: `parent` cannot be written.
  static absl::StatusOr<std::unique_ptr<ScratchDirectory>> Create(
      const std::string& parent);
  ~ScratchDirectory();
  ScratchDirectory(const ScratchDirectory&) = delete;
  ScratchDirectory& operator=(const ScratchDirectory&) = delete;

  const std::string& path() const { return path_; }

  // Removes the files in it; whoever made them must have ended. Errors are ignored: the
  // next call or the next process meets them again.
  void Clear() const;

 private:
  ScratchDirectory(std::string path, int lock) : path_(std::move(path)), lock_(lock) {}

  const std::string path_;
  const int lock_;  // descriptor of the locked file; not inherited by children
};

}  // namespace tessera::cli

#endif  // TESSERA_CLI_SCRATCH_DIRECTORY_H_
