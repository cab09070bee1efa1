// Which backend a benchmark of ops measures, and against which limits.
#ifndef TESSERA_BENCHMARKS_BENCH_TARGET_H_
#define TESSERA_BENCHMARKS_BENCH_TARGET_H_

#include <string>

#include "kernels/device_limits.h"

namespace tessera::kernels {

struct BenchTarget {
  std::string backend = "cpu";
  DeviceLimits limits;  // of a GPU, measured at the start of the run

  bool is_gpu() const { return backend == "cuda"; }
};

// The process's: benchmarks are functions that take nothing but their state. Set before
// they run, by ChooseBenchTarget.
BenchTarget& TheBenchTarget();

// Takes --backend=NAME out of the arguments; of a GPU measures the limits and adds them
// to the context of the results. False, having said why, if there is no such device.
bool ChooseBenchTarget(int* argc, char** argv);

}  // namespace tessera::kernels

#endif  // TESSERA_BENCHMARKS_BENCH_TARGET_H_
