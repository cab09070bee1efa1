// ScriptedFile: a BlockFile in memory that fails, changes and stands still when told, and
// DiskTables over it, for tests. Not used by the product.
#ifndef TESSERA_ENGRAM_STORE_DISK_SCRIPTED_FILE_H_
#define TESSERA_ENGRAM_STORE_DISK_SCRIPTED_FILE_H_

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include <unistd.h>

#include "common/check.h"
#include "common/mutex.h"
#include "engram_store/disk/disk_table.h"
#include "engram_store/table/random_tensors.h"
#include "engram_store/table/table_writer.h"

namespace tessera::engram_store {

// What all handles of one file share. Thread-safe.
class FileScript {
 public:
  struct Read {
    uint64_t offset = 0;
    uint64_t bytes = 0;
  };

  explicit FileScript(std::vector<std::byte> content) : content_(std::move(content)) {}

  // From now on every read gives `status`, until OK is set.
  void FailWith(absl::Status status) {
    MutexLock lock(&mutex_);
    failure_ = std::move(status);
  }
  void FlipByte(uint64_t offset) {
    MutexLock lock(&mutex_);
    content_[offset] ^= std::byte{1};
  }
  // Reads wait until Resume.
  void Pause() {
    MutexLock lock(&mutex_);
    paused_ = true;
  }
  void Resume() {
    MutexLock lock(&mutex_);
    paused_ = false;
  }
  // Until so many reads have begun since the last Forget.
  void AwaitReads(size_t count) {
    MutexLock lock(&mutex_);
    const auto enough = [this, count]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
      return reads_.size() >= count;
    };
    mutex_.Await(Condition(&enough));
  }
  std::vector<Read> reads() const {
    MutexLock lock(&mutex_);
    return reads_;
  }
  void Forget() {
    MutexLock lock(&mutex_);
    reads_.clear();
  }
  uint64_t size() const {
    MutexLock lock(&mutex_);
    return content_.size();
  }

  absl::Status DoRead(uint64_t offset, std::span<std::byte> destination) {
    MutexLock lock(&mutex_);
    reads_.push_back({.offset = offset, .bytes = destination.size()});
    const auto going = [this]()
                           ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return !paused_; };
    mutex_.Await(Condition(&going));
    if (!failure_.ok()) {
      return failure_;
    }
    const size_t bytes = std::min<size_t>(destination.size(), content_.size() - offset);
    std::memcpy(destination.data(), content_.data() + offset, bytes);
    return absl::OkStatus();
  }

 private:
  mutable Mutex mutex_;
  std::vector<std::byte> content_ ABSL_GUARDED_BY(mutex_);
  absl::Status failure_ ABSL_GUARDED_BY(mutex_);
  bool paused_ ABSL_GUARDED_BY(mutex_) = false;
  std::vector<Read> reads_ ABSL_GUARDED_BY(mutex_);
};

class ScriptedFile final : public BlockFile {
 public:
  explicit ScriptedFile(std::shared_ptr<FileScript> script)
      : script_(std::move(script)), size_(script_->size()) {}

  const std::string& name() const override { return name_; }
  uint64_t size() const override { return size_; }
  absl::Status Read(uint64_t offset, std::span<std::byte> destination) const override {
    return script_->DoRead(offset, destination);
  }

 private:
  const std::string name_ = "scripted file";
  const std::shared_ptr<FileScript> script_;
  const uint64_t size_;
};

// A table file of random rows.
class ScriptedTable {
 public:
  explicit ScriptedTable(const TableLayout& layout, uint32_t seed = 7,
                         ShardIndex shard = {})
      : layout_(layout), tensors_(layout, seed) {
    const std::string path =
        (std::filesystem::temp_directory_path() / "scripted_table.").string() +
        std::to_string(getpid());
    const std::string digest = DigestTable(layout, tensors_.view(), 1).value();
    TESSERA_CHECK(PackTableFile(layout, tensors_.view(), shard, digest, path, 1).ok());
    std::ifstream file(path, std::ios::binary);
    const std::string text((std::istreambuf_iterator<char>(file)), {});
    unlink(path.c_str());
    const auto bytes = std::as_bytes(std::span(text));
    script_ = std::make_shared<FileScript>(std::vector(bytes.begin(), bytes.end()));
  }

  const TableLayout& layout() const { return layout_; }
  const RandomTensors& tensors() const { return tensors_; }
  FileScript& script() { return *script_; }
  std::unique_ptr<BlockFile> File() { return std::make_unique<ScriptedFile>(script_); }
  std::unique_ptr<DiskTable> Open() { return DiskTable::Open(File(), 1).value(); }

 private:
  const TableLayout layout_;
  const RandomTensors tensors_;
  std::shared_ptr<FileScript> script_;
};

}  // namespace tessera::engram_store

#endif  // TESSERA_ENGRAM_STORE_DISK_SCRIPTED_FILE_H_
