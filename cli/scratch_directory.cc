#include "cli/scratch_directory.h"

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <memory>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/status.h"

namespace tessera::cli {
namespace {

constexpr std::string_view kPrefix = "tessera-job-";
constexpr std::string_view kLockName = "lock";

bool IsOurs(const std::filesystem::path& directory) {
  struct stat facts = {};
  return ::lstat(directory.c_str(), &facts) == 0 && S_ISDIR(facts.st_mode) &&
         facts.st_uid == ::geteuid();
}

// A directory without a lock file is one that is being made.
bool IsAbandoned(const std::filesystem::path& directory) {
  const int lock = ::open((directory / kLockName).c_str(), O_RDWR | O_CLOEXEC);
  if (lock < 0) {
    return false;
  }
  const bool abandoned = ::flock(lock, LOCK_EX | LOCK_NB) == 0;
  ::close(lock);
  return abandoned;
}

void RemoveAbandoned(const std::string& parent) {
  std::error_code error;
  std::vector<std::filesystem::path> abandoned;
  for (std::filesystem::directory_iterator entry(parent, error), end;
       !error && entry != end; entry.increment(error)) {
    const std::filesystem::path& path = entry->path();
    if (path.filename().string().starts_with(kPrefix) && IsOurs(path) &&
        IsAbandoned(path)) {
      abandoned.push_back(path);
    }
  }
  for (const std::filesystem::path& path : abandoned) {
    std::filesystem::remove_all(path, error);
  }
}

}  // namespace

absl::StatusOr<std::unique_ptr<ScratchDirectory>> ScratchDirectory::Create(
    const std::string& parent) {
  RemoveAbandoned(parent);
  std::string path = parent + "/" + std::string(kPrefix) + "XXXXXX";
  if (::mkdtemp(path.data()) == nullptr) {
    return UnavailableF("{}: {}", path, std::strerror(errno));
  }
  const std::string lock_path = path + "/" + std::string(kLockName);
  // Gets its name when it is held: another process that looks for abandoned directories
  // would take a free lock, and this directory with it.
  const std::string new_path = lock_path + ".new";
  const int lock = ::open(new_path.c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
  if (lock < 0 || ::flock(lock, LOCK_EX | LOCK_NB) != 0 ||
      ::rename(new_path.c_str(), lock_path.c_str()) != 0) {
    const int reason = errno;
    if (lock >= 0) {
      ::close(lock);
    }
    std::error_code error;
    std::filesystem::remove_all(path, error);
    return UnavailableF("{}: {}", lock_path, std::strerror(reason));
  }
  return std::unique_ptr<ScratchDirectory>(new ScratchDirectory(std::move(path), lock));
}

ScratchDirectory::~ScratchDirectory() {
  std::error_code error;
  std::filesystem::remove_all(path_, error);
  ::close(lock_);
}

void ScratchDirectory::Clear() const {
  std::error_code error;
  for (std::filesystem::directory_iterator entry(path_, error), end;
       !error && entry != end; entry.increment(error)) {
    if (entry->path().filename() != kLockName) {
      std::error_code ignored;
      std::filesystem::remove_all(entry->path(), ignored);
    }
  }
}

}  // namespace tessera::cli
