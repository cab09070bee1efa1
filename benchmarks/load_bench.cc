// Loading weights against what the disk and the memory of this machine can do: a
// checkpoint of V4-Flash's layer at full width with fewer experts is written to the
// temporary directory; then, in each of five interleaved rounds: the disk alone (O_DIRECT
// reads of the file), a load with the file dropped from the page cache, a load with the
// file in it, and the memory alone (a sum over as many bytes). A load is what `serve`
// does: open, check every tensor, bring every byte that a rank holds in. Also printed:
// how many bytes the cold load made the system read, over the file's size; 1 means that
// every byte was read once.
#include <algorithm>
#include <atomic>
#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <memory>
#include <numeric>
#include <optional>
#include <sstream>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "cli/load_progress.h"
#include "cli/loaded_model.h"
#include "fmt/format.h"
#include <fcntl.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/log.h"
#include "common/status.h"
#include "common/status_macros.h"
#include "engram_store/table/parallel.h"
#include "model/config/model_config.h"
#include "model/tensors/dummy_checkpoint.h"
#include "model/tensors/safetensors_writer.h"

namespace tessera {
namespace {

constexpr int kRounds = 5;
constexpr int64_t kPieceBytes = int64_t{8} << 20;
constexpr size_t kDirectAlignment = 4096;
constexpr double kGib = 1024.0 * 1024 * 1024;
const std::vector<std::string> kOverrides = {"num_hidden_layers=1", "num_hash_layers=0",
                                             "n_routed_experts=32",
                                             "num_nextn_predict_layers=0"};

// The checkpoint in a directory of its own, removed at the end.
class BenchCheckpoint {
 public:
  static absl::StatusOr<std::unique_ptr<BenchCheckpoint>> Create() {
    auto out = std::make_unique<BenchCheckpoint>();
    out->directory_ = std::filesystem::temp_directory_path() / "tessera-load-XXXXXX";
    if (::mkdtemp(out->directory_.data()) == nullptr) {
      return UnavailableF("cannot make {}", out->directory_);
    }
    std::ifstream in("tests/data/configs/deepseek_v4_flash.json");
    std::stringstream text;
    text << in.rdbuf();
    std::ofstream(out->directory_ + "/config.json") << text.str();
    TESSERA_ASSIGN_OR_RETURN(const model::ModelConfig config,
                             model::ParseModelConfig(text.str(), kOverrides));
    TESSERA_ASSIGN_OR_RETURN(const std::unique_ptr<model::Checkpoint> dummy,
                             model::MakeDummyCheckpoint(config, 1, text.str()));
    model::SafetensorsWriter writer;
    for (const std::string& name : dummy->names()) {
      TESSERA_ASSIGN_OR_RETURN(const model::TensorRef tensor, dummy->Find(name));
      TESSERA_RETURN_IF_ERROR(writer.Add(name, tensor.dtype, tensor.shape, tensor.data));
    }
    TESSERA_RETURN_IF_ERROR(writer.Write(out->file()));
    return out;
  }
  ~BenchCheckpoint() {
    std::error_code ignored;
    std::filesystem::remove_all(directory_, ignored);
  }

  const std::string& directory() const { return directory_; }
  std::string file() const { return directory_ + "/model.safetensors"; }
  int64_t bytes() const {
    return static_cast<int64_t>(std::filesystem::file_size(file()));
  }

  void DropFromPageCache() const {
    const int descriptor = ::open(file().c_str(), O_RDONLY | O_CLOEXEC);
    ::fsync(descriptor);
    ::posix_fadvise(descriptor, 0, 0, POSIX_FADV_DONTNEED);
    ::close(descriptor);
  }

 private:
  std::string directory_;
};

// GiB/s of reading the file past the page cache, with as many threads as a load.
absl::StatusOr<double> DiskRate(const BenchCheckpoint& checkpoint) {
  const int descriptor =
      ::open(checkpoint.file().c_str(), O_RDONLY | O_DIRECT | O_CLOEXEC);
  if (descriptor < 0) {
    return UnavailableF("{} cannot be read past the page cache", checkpoint.file());
  }
  const auto pieces =
      static_cast<size_t>((checkpoint.bytes() + kPieceBytes - 1) / kPieceBytes);
  std::atomic<int64_t> total = 0;
  const absl::Time begin = Clock::Real()->Now();
  const absl::Status status = engram_store::ParallelFor(
      pieces, engram_store::DefaultLoadThreads(), [&](size_t i) {
        void* const buffer = std::aligned_alloc(kDirectAlignment, kPieceBytes);
        const auto got = ::pread(descriptor, buffer, kPieceBytes,
                                 static_cast<int64_t>(i) * kPieceBytes);
        std::free(buffer);
        total += got;
        return got < 0 ? UnavailableF("read of piece {} failed", i) : absl::OkStatus();
      });
  const double seconds = absl::ToDoubleSeconds(Clock::Real()->Now() - begin);
  ::close(descriptor);
  TESSERA_RETURN_IF_ERROR(status);
  return static_cast<double>(total.load()) / kGib / seconds;
}

// GiB/s of adding up as many bytes of memory.
double MemoryRate(const std::vector<uint64_t>& words) {
  constexpr size_t kPieces = 64;
  std::atomic<uint64_t> sum = 0;
  const absl::Time begin = Clock::Real()->Now();
  const absl::Status status = engram_store::ParallelFor(
      kPieces, engram_store::DefaultLoadThreads(), [&](size_t i) {
        const size_t first = words.size() * i / kPieces;
        const size_t last = words.size() * (i + 1) / kPieces;
        sum += std::accumulate(words.begin() + static_cast<int64_t>(first),
                               words.begin() + static_cast<int64_t>(last), uint64_t{0});
        return absl::OkStatus();
      });
  const double seconds = absl::ToDoubleSeconds(Clock::Real()->Now() - begin);
  volatile const uint64_t sink = sum.load();
  static_cast<void>(sink);
  return status.ok()
             ? static_cast<double>(words.size() * sizeof(uint64_t)) / kGib / seconds
             : 0.0;
}

// GiB/s from opening the folder to every byte in memory.
absl::StatusOr<double> LoadRate(const BenchCheckpoint& checkpoint) {
  Clock* const clock = Clock::Real();
  const absl::Time begin = clock->Now();
  TESSERA_ASSIGN_OR_RETURN(
      const std::unique_ptr<cli::LoadedModel> model,
      cli::LoadModel(checkpoint.directory(), {.overrides = kOverrides}));
  TESSERA_RETURN_IF_ERROR(
      cli::ReadWeights(*model, cli::GroupShape{}, std::nullopt, /*quiet=*/true, clock));
  return static_cast<double>(checkpoint.bytes()) / kGib /
         absl::ToDoubleSeconds(clock->Now() - begin);
}

// Bytes that this process has made the system read from storage.
int64_t StorageBytes() {
  std::ifstream in("/proc/self/io");
  std::string name;
  int64_t value = 0;
  while (in >> name >> value) {
    if (name == "read_bytes:") {
      return value;
    }
  }
  return 0;
}

struct Rates {
  std::vector<double> disk, cold, warm, memory, read_share;
};

absl::StatusOr<Rates> Measure(const BenchCheckpoint& checkpoint) {
  Rates rates;
  const std::vector<uint64_t> words(static_cast<size_t>(checkpoint.bytes()) / 8, 1);
  for (int round = 0; round < kRounds; ++round) {
    checkpoint.DropFromPageCache();
    TESSERA_ASSIGN_OR_RETURN(const double disk, DiskRate(checkpoint));
    checkpoint.DropFromPageCache();
    const int64_t before = StorageBytes();
    TESSERA_ASSIGN_OR_RETURN(const double cold, LoadRate(checkpoint));
    rates.read_share.push_back(static_cast<double>(StorageBytes() - before) /
                               static_cast<double>(checkpoint.bytes()));
    TESSERA_ASSIGN_OR_RETURN(const double warm, LoadRate(checkpoint));
    rates.disk.push_back(disk);
    rates.cold.push_back(cold);
    rates.warm.push_back(warm);
    rates.memory.push_back(MemoryRate(words));
  }
  return rates;
}

double Median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

void Print(const char* what, const std::vector<double>& values, const char* unit) {
  const auto [low, high] = std::minmax_element(values.begin(), values.end());
  std::cout << fmt::format("{:<34} {:6.2f} {} ({:.2f} to {:.2f})\n", what, Median(values),
                           unit, *low, *high);
}

absl::Status Run() {
  TESSERA_ASSIGN_OR_RETURN(const std::unique_ptr<BenchCheckpoint> checkpoint,
                           BenchCheckpoint::Create());
  TESSERA_ASSIGN_OR_RETURN(const Rates rates, Measure(*checkpoint));
  std::cout << fmt::format("load of {:.2f} GiB, {} threads, median of {} rounds\n",
                           static_cast<double>(checkpoint->bytes()) / kGib,
                           engram_store::DefaultLoadThreads(), kRounds);
  Print("disk alone", rates.disk, "GiB/s");
  Print("load, nothing cached", rates.cold, "GiB/s");
  Print("  bytes read / bytes of the file", rates.read_share, "     ");
  Print("load, file cached", rates.warm, "GiB/s");
  Print("memory alone", rates.memory, "GiB/s");
  std::cout << fmt::format("cold load / disk {:.2f}, cached load / memory {:.2f}\n",
                           Median(rates.cold) / Median(rates.disk),
                           Median(rates.warm) / Median(rates.memory));
  return absl::OkStatus();
}

}  // namespace
}  // namespace tessera

int main() {
  tessera::log::Configure(tessera::log::Level::kWarning, tessera::log::Format::kText);
  const absl::Status status = tessera::Run();
  if (!status.ok()) {
    std::cerr << "load_bench: " << status.ToString() << '\n';
    return 1;
  }
  return 0;
}
