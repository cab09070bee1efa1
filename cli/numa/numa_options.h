// NumaOptions: --numa and --pin-threads, and which ranks they fit.
#ifndef TESSERA_CLI_NUMA_NUMA_OPTIONS_H_
#define TESSERA_CLI_NUMA_NUMA_OPTIONS_H_

#include <string>

#include "absl/status/status.h"

#include "common/option_table.h"

namespace tessera::cli {

struct NumaOptions {
  std::string mode = "off";
  bool pin_threads = false;

  bool asks() const { return mode != "off" || pin_threads; }
};

// `options` must outlive the table.
void AddNumaOptions(OptionTable* table, NumaOptions* options);

// kInvalidArgument, naming both flags: another backend than cpu; several ranks that are
// threads of one process (`workers` 0) bound or pinned.
absl::Status CheckNumaOptions(const NumaOptions& options, const std::string& backend,
                              int workers, int num_ranks);

}  // namespace tessera::cli

#endif  // TESSERA_CLI_NUMA_NUMA_OPTIONS_H_
