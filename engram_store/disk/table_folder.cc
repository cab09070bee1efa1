#include "engram_store/disk/table_folder.h"

#include <cerrno>
#include <filesystem>
#include <system_error>
#include <utility>

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include "common/log.h"
#include "common/mapped_pages.h"
#include "common/status.h"
#include "common/status_macros.h"
#include "engram_store/table/checkpoint_tables.h"
#include "engram_store/table/engram_table.h"
#include "engram_store/table/table_writer.h"

namespace tessera::engram_store {
namespace {

// Holds the folder against other processes.
class FolderLock {
 public:
  FolderLock() = default;
  ~FolderLock() {
    if (file_ >= 0) {
      close(file_);  // And with it the lock.
    }
  }
  FolderLock(const FolderLock&) = delete;
  FolderLock& operator=(const FolderLock&) = delete;

  absl::Status Take(const std::string& folder) {
    std::error_code error;
    std::filesystem::create_directories(folder, error);
    const std::string path = folder + "/.lock";
    file_ = open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644);
    int taken = -1;
    while (file_ >= 0 && (taken = flock(file_, LOCK_EX)) != 0 && errno == EINTR) {
    }
    if (taken != 0) {
      return UnavailableF("engram table folder {} cannot be used: {}", folder,
                          std::generic_category().message(errno));
    }
    return absl::OkStatus();
  }

 private:
  int file_ = -1;
};

std::string FileOf(const TableFolderOptions& options, int64_t layer_id) {
  return fmt::format("{}/layer{}_shard{}_of_{}.tsrengt", options.folder, layer_id,
                     options.shard.shard, options.shard.num_shards);
}

// The file at `path` if it holds what it should.
absl::StatusOr<std::unique_ptr<DiskTable>> OpenExpected(
    const std::string& path, const TableLayout& layout, const std::string& digest,
    const TableFolderOptions& options) {
  TESSERA_ASSIGN_OR_RETURN(std::unique_ptr<BlockFile> file, OpenBlockFile(path));
  TESSERA_ASSIGN_OR_RETURN(std::unique_ptr<DiskTable> table,
                           DiskTable::Open(std::move(file), options.num_threads));
  if (table->layout() != layout || table->info().digest != digest ||
      table->shard() != options.shard) {
    return DataLossF("{} holds shard {} of table {}, expected shard {} of {}", path,
                     table->shard().shard, table->info().digest, options.shard.shard,
                     digest);
  }
  return table;
}

absl::StatusOr<std::unique_ptr<DiskTable>> OpenOrPack(const TableLayout& layout,
                                                      const TableTensors& tensors,
                                                      const std::string& digest,
                                                      const TableFolderOptions& options) {
  const std::string path = FileOf(options, layout.layer_id);
  absl::StatusOr<std::unique_ptr<DiskTable>> table =
      OpenExpected(path, layout, digest, options);
  if (table.ok()) {
    return table;
  }
  if (table.status().code() != absl::StatusCode::kNotFound &&
      table.status().code() != absl::StatusCode::kDataLoss) {
    return table.status();
  }
  log::Info("engram", "packs a table into a file",
            {{"file", path}, {"why", table.status().ToString()}});
  TESSERA_RETURN_IF_ERROR(
      PackTableFile(layout, tensors, options.shard, digest, path, options.num_threads));
  return OpenExpected(path, layout, digest, options);
}

}  // namespace

absl::StatusOr<OpenedTables> OpenTableFolder(const model::ModelConfig& config,
                                             const EngramHash& hash,
                                             const model::Checkpoint& checkpoint,
                                             const TableFolderOptions& options) {
  FolderLock lock;
  TESSERA_RETURN_IF_ERROR(lock.Take(options.folder));
  OpenedTables opened;
  TESSERA_ASSIGN_OR_RETURN(opened.manifest,
                           LoadExpectedManifest(config, hash, checkpoint));
  for (ManifestTable& table : opened.manifest.tables) {
    TESSERA_ASSIGN_OR_RETURN(const TableTensors tensors,
                             FindTableTensors(config, table.layout, checkpoint));
    TESSERA_ASSIGN_OR_RETURN(table.digest,
                             DigestTable(table.layout, tensors, options.num_threads));
    absl::StatusOr<std::unique_ptr<DiskTable>> on_disk =
        OpenOrPack(table.layout, tensors, table.digest, options);
    DropPages(tensors.weights);
    DropPages(tensors.scales);
    if (!on_disk.ok()) {
      return on_disk.status();
    }
    opened.tables.push_back(*std::move(on_disk));
  }
  return opened;
}

}  // namespace tessera::engram_store
