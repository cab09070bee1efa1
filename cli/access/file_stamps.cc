#include "cli/access/file_stamps.h"

#include <sys/stat.h>

namespace tessera::cli {

FileStamps::FileStamps(const std::vector<std::string>& paths) {
  for (const std::string& path : paths) {
    if (!path.empty()) {
      paths_.push_back(path);
    }
  }
  stamps_.resize(paths_.size());
  Changed();
}

bool FileStamps::Changed() {
  bool changed = false;
  for (size_t i = 0; i < paths_.size(); ++i) {
    Stamp now;
    if (Look(paths_[i], &now) && now != stamps_[i]) {
      stamps_[i] = now;
      changed = true;
    }
  }
  return changed;
}

bool FileStamps::Look(const std::string& path, Stamp* stamp) {
  struct stat file = {};
  // Follows links: a mounted secret is a link that moves.
  if (::stat(path.c_str(), &file) != 0) {
    return false;
  }
  stamp->device = file.st_dev;
  stamp->inode = file.st_ino;
  stamp->size = file.st_size;
  stamp->seconds = file.st_mtim.tv_sec;
  stamp->nanoseconds = file.st_mtim.tv_nsec;
  return true;
}

}  // namespace tessera::cli
