#include "cli/ranks/process_group_registry.h"

#include <cerrno>
#include <charconv>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <memory>
#include <span>
#include <sstream>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include <unistd.h>

#include "common/status.h"
#include "common/status_macros.h"
#ifdef TESSERA_MPI
#include "worker/comm/mpi/mpi_runtime.h"
#endif

namespace tessera::cli {

std::string SelfPath() {
  std::error_code error;
  const std::filesystem::path path =
      std::filesystem::read_symlink("/proc/self/exe", error);
  return error ? std::string("tessera") : path.string();
}

bool InProcessGroupJob() { return std::getenv("OMPI_COMM_WORLD_SIZE") != nullptr; }

absl::StatusOr<HostPosition> PositionOnHost() {
  if (!InProcessGroupJob()) {
    return HostPosition{};
  }
  const auto number = [](const char* name) {
    const char* text = std::getenv(name);
    int value = -1;
    if (text != nullptr) {
      std::from_chars(text, text + std::strlen(text), value);
    }
    return value;
  };
  const HostPosition position = {.rank = number("OMPI_COMM_WORLD_LOCAL_RANK"),
                                 .num_ranks = number("OMPI_COMM_WORLD_LOCAL_SIZE")};
  if (position.rank < 0 || position.rank >= position.num_ranks) {
    return InvalidArgumentF(
        "OMPI_COMM_WORLD_LOCAL_RANK {} of OMPI_COMM_WORLD_LOCAL_SIZE {}, expected a rank "
        "below the size from the launcher",
        position.rank, position.num_ranks);
  }
  return position;
}

#ifdef TESSERA_MPI

namespace {

class MpiProcessGroup final : public ProcessGroup {
 public:
  explicit MpiProcessGroup(std::unique_ptr<worker::MpiRuntime> runtime)
      : runtime_(std::move(runtime)) {}

  int rank() const override { return runtime_->world_rank(); }
  int size() const override { return runtime_->world_size(); }
  absl::StatusOr<std::unique_ptr<worker::Communicator>> CreateGroup(
      const std::string& name, int color, const worker::CommOptions& options) override {
    return runtime_->CreateGroup(name, color, options);
  }
  absl::Status Finalize() override { return runtime_->Finalize(); }

 private:
  std::unique_ptr<worker::MpiRuntime> runtime_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<ProcessGroup>> JoinProcessGroup(Clock* clock) {
  TESSERA_ASSIGN_OR_RETURN(std::unique_ptr<worker::MpiRuntime> runtime,
                           worker::MpiRuntime::Create(clock));
  return std::make_unique<MpiProcessGroup>(std::move(runtime));
}

namespace {

bool OnPath(const std::string& program) {
  const char* path = std::getenv("PATH");
  std::istringstream folders(path != nullptr ? path : "");
  for (std::string folder; std::getline(folders, folder, ':');) {
    if (::access((folder + "/" + program).c_str(), X_OK) == 0) {
      return true;
    }
  }
  return false;
}

}  // namespace

absl::StatusOr<std::vector<std::string>> LaunchCommand(
    int num_ranks, const std::string& memory_directory,
    std::span<const std::string> arguments) {
  if (!OnPath("mpirun")) {
    return absl::NotFoundError("mpirun is not on PATH; it comes with Open MPI");
  }
  std::vector<std::string> command = {
      "mpirun",    "-n",  std::to_string(num_ranks), "--quiet", "--oversubscribe",
      "--bind-to", "none"};
  // Ranks may outnumber cores, wait by yielding, and talk through shared memory only: the
  // job stays on this machine and opens no port. They keep nothing, so that no second has
  // to pass between SIGTERM and SIGKILL.
  const std::pair<std::string_view, std::string_view> parameters[] = {
      {"btl", "self,vader"},
      {"btl_vader_single_copy_mechanism", "none"},
      {"btl_vader_backing_directory", memory_directory},
      {"mpi_yield_when_idle", "1"},
      {"oob_tcp_if_include", "lo"},
      {"plm", "isolated"},
      {"odls_base_sigkill_timeout", "0"}};
  for (const auto& [name, value] : parameters) {
    command.insert(command.end(), {"--mca", std::string(name), std::string(value)});
  }
  if (::geteuid() == 0) {
    command.emplace_back("--allow-run-as-root");
  }
  command.insert(command.end(), arguments.begin(), arguments.end());
  return command;
}

#else

absl::StatusOr<std::unique_ptr<ProcessGroup>> JoinProcessGroup(Clock*) {
  return absl::UnimplementedError("this build has no MPI");
}

absl::StatusOr<std::vector<std::string>> LaunchCommand(int, const std::string&,
                                                       std::span<const std::string>) {
  return absl::UnimplementedError("this build has no MPI");
}

#endif

void ExitAfterGroupFault(int exit_code) { ::_exit(exit_code); }

absl::Status ReplaceByJob(int num_ranks, std::span<const std::string> arguments) {
  std::vector<std::string> program = {SelfPath()};
  program.insert(program.end(), arguments.begin(), arguments.end());
  TESSERA_ASSIGN_OR_RETURN(std::vector<std::string> command,
                           LaunchCommand(num_ranks, kMemoryDirectory, program));
  std::vector<char*> argv;
  for (std::string& word : command) {
    argv.push_back(word.data());
  }
  argv.push_back(nullptr);
  ::execvp(argv[0], argv.data());
  return UnavailableF("cannot start {}: {}", command[0], std::strerror(errno));
}

}  // namespace tessera::cli
