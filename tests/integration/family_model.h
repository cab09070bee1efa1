// FamilyModel: the small model of a published family, or the demo model, as the tests of
// this folder run it: loaded, with its Engram tables in memory and a recorded prompt. It
// starts nothing; GroupHarness does.
#ifndef TESSERA_TESTS_INTEGRATION_FAMILY_MODEL_H_
#define TESSERA_TESTS_INTEGRATION_FAMILY_MODEL_H_

#include <cstdint>
#include <iosfwd>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "cli/loaded_model.h"
#include "cli/ranks/rank_assembly.h"

#include "worker/layers/cache_layout.h"

namespace tessera::testing {

// A family and how its keys and values are kept.
struct Family {
  const char* name;  // of a folder in tests/data; "demo" is the model in models/demo
  int64_t block_size;
  worker::KvCacheDtype kv_cache_dtype = worker::KvCacheDtype::kActivations;
};

void PrintTo(const Family& family, std::ostream* os);

// Owns what it loaded; harnesses borrow the model. A value that is moved.
struct FamilyModel {
  // Errors as of the loaders.
  static absl::StatusOr<FamilyModel> Load(const std::string& name);

  std::unique_ptr<cli::LoadedModel> model;
  cli::EngramSourceFactory engram;
  std::vector<int32_t> ids;  // the longest recorded prompt: 331 tokens, of the demo 300
};

}  // namespace tessera::testing

#endif  // TESSERA_TESTS_INTEGRATION_FAMILY_MODEL_H_
