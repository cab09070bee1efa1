// SeedRange: which seeds a simulation runs: 500, or what its command line says: --seeds=N
// for N of them, --seed=N for the one that a failure printed.
#ifndef TESSERA_TESTS_SIMULATION_SEED_RANGE_H_
#define TESSERA_TESTS_SIMULATION_SEED_RANGE_H_

#include <cstdint>

namespace tessera::testing {

struct SeedRange {
  uint64_t first = 1;
  uint64_t count = 500;

  uint64_t end() const { return first + count; }
};

// Of this program; its tests may ask from InitSimulation on.
const SeedRange& Seeds();

// What main of a simulation calls first: takes the flags of Google Test and of the seeds.
void InitSimulation(int argc, char** argv);

}  // namespace tessera::testing

#endif  // TESSERA_TESTS_SIMULATION_SEED_RANGE_H_
