// MachineLimits: what this machine can read and multiply, measured by the process that
// then relates its own figures to it.
//
// It stands under the subcommands of `tessera bench` that print a share. Each call
// measures anew, so that limits and figures can be interleaved: on a shared machine both
// move. It knows no model.
#ifndef TESSERA_CLI_BENCH_MACHINE_LIMITS_H_
#define TESSERA_CLI_BENCH_MACHINE_LIMITS_H_

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "common/clock.h"

namespace tessera::cli {

// What is multiplied: floats, or 8-bit integers summed in 32 bits.
enum class Arithmetic { kF32, kInt8 };

// Owns the memory that is read. External synchronisation; a call blocks for some tens of
// milliseconds and starts threads of its own, so nothing else should compute meanwhile.
class MachineLimits {
 public:
  // Takes 256 MiB: eight times the largest caches of desktop processors.
  MachineLimits(int num_threads, Clock* clock);

  // Bytes per second that the threads together read from memory, each its own part: the
  // best of three passes.
  double ReadBytesPerSecond();

  // Multiply-adds per second of the threads together, with operands in registers, by the
  // widest instructions that this processor has for it: the best of three runs.
  double MultiplyAddsPerSecond(Arithmetic arithmetic);

  // The instructions behind MultiplyAddsPerSecond: "amx_int8", "avx512_vnni",
  // "avx2", "scalar"…
  static std::string_view InstructionSet(Arithmetic arithmetic);

 private:
  // Seconds until `work` has run on all threads.
  template <typename Work>
  double Seconds(const Work& work) const;

  const int num_threads_;
  Clock* const clock_;
  std::vector<uint64_t> memory_;
};

// "AMD EPYC…" as the system names the processor; empty where it does not.
std::string ProcessorName();

}  // namespace tessera::cli

#endif  // TESSERA_CLI_BENCH_MACHINE_LIMITS_H_
