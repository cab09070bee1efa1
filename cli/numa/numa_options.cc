#include "cli/numa/numa_options.h"

#include "common/status.h"

namespace tessera::cli {

void AddNumaOptions(OptionTable* table, NumaOptions* options) {
  table
      ->Add("numa", &options->mode,
            "of the cpu backend on machines with several memory nodes: bind, each rank "
            "of --workers to the CPUs and memory of one; interleave, memory over all, "
            "for one rank; off")
      .OneOf({"off", "bind", "interleave"});
  table->Add("pin-threads", &options->pin_threads,
             "each kernel thread of the cpu backend to a CPU of its own");
}

absl::Status CheckNumaOptions(const NumaOptions& options, const std::string& backend,
                              int workers, int num_ranks) {
  if (options.asks() && backend != "cpu") {
    return InvalidArgumentF(
        "{} runs on --backend cpu only, got {}",
        options.mode != "off" ? "--numa " + options.mode : std::string("--pin-threads"),
        backend);
  }
  if (workers > 0 || num_ranks == 1) {
    return absl::OkStatus();
  }
  if (options.mode == "bind") {
    return InvalidArgumentF(
        "--numa bind with {} ranks that are threads of one process: give --workers {} "
        "--comm mpi",
        num_ranks, num_ranks);
  }
  if (options.pin_threads) {
    return InvalidArgumentF(
        "--pin-threads with {} ranks that are threads of one process, which would share "
        "CPUs: give --workers {} --comm mpi",
        num_ranks, num_ranks);
  }
  return absl::OkStatus();
}

}  // namespace tessera::cli
