#include "tests/simulation/seed_range.h"

#include <cstdlib>
#include <string_view>

#include "gtest/gtest.h"

namespace tessera::testing {
namespace {

// Set before the first test, read by all.
SeedRange seeds;

// Reads --name=N into `value`; false if `argument` is another flag.
bool ReadFlag(std::string_view argument, std::string_view name, uint64_t* value) {
  if (!argument.starts_with(name)) {
    return false;
  }
  *value = std::strtoull(argument.data() + name.size(), nullptr, 10);
  return true;
}

}  // namespace

const SeedRange& Seeds() { return seeds; }

void InitSimulation(int argc, char** argv) {
  ::testing::InitGoogleTest(&argc, argv);
  for (int i = 1; i < argc; ++i) {
    if (ReadFlag(argv[i], "--seed=", &seeds.first)) {
      seeds.count = 1;
    }
    ReadFlag(argv[i], "--seeds=", &seeds.count);
  }
}

}  // namespace tessera::testing
