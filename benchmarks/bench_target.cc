#include "benchmarks/bench_target.h"

#include <iostream>
#include <string_view>

#include "benchmark/benchmark.h"

#include "common/clock.h"

namespace tessera::kernels {

BenchTarget& TheBenchTarget() {
  static BenchTarget target;
  return target;
}

bool ChooseBenchTarget(int* argc, char** argv) {
  constexpr std::string_view kFlag = "--backend=";
  BenchTarget& target = TheBenchTarget();
  int kept = 1;
  for (int i = 1; i < *argc; ++i) {
    const std::string_view argument = argv[i];
    if (argument.substr(0, kFlag.size()) == kFlag) {
      target.backend = argument.substr(kFlag.size());
    } else {
      argv[kept++] = argv[i];
    }
  }
  *argc = kept;
  if (!target.is_gpu()) {
    return true;
  }
  auto limits = MeasureDeviceLimits(target.backend, Clock::Real());
  if (!limits.ok()) {
    std::cerr << limits.status().message() << "\n";
    return false;
  }
  target.limits = *std::move(limits);
  const DeviceLimits& found = target.limits;
  benchmark::AddCustomContext("device", found.device);
  benchmark::AddCustomContext("clock_mhz_max", std::to_string(found.clock_mhz_max));
  benchmark::AddCustomContext("memory_mhz_max", std::to_string(found.memory_mhz_max));
  benchmark::AddCustomContext("read_bytes_per_s", std::to_string(found.read_bytes_per_s));
  benchmark::AddCustomContext("fma_per_s", std::to_string(found.multiply_adds_per_s));
  return true;
}

}  // namespace tessera::kernels
