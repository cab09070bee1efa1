#include "tests/integration/family_model.h"

#include <ostream>
#include <utility>

#include "fmt/format.h"

#include "common/clock.h"
#include "common/status_macros.h"
#include "model/tensors/checkpoint.h"

namespace tessera::testing {

void PrintTo(const Family& family, std::ostream* os) {
  *os << family.name << " in blocks of " << family.block_size
      << (family.kv_cache_dtype == worker::KvCacheDtype::kFp8 ? ", packed" : "");
}

absl::StatusOr<FamilyModel> FamilyModel::Load(const std::string& name) {
  const bool demo = name == "demo";
  const std::string recorded = "tests/data/" + name;
  FamilyModel family;
  TESSERA_ASSIGN_OR_RETURN(family.model, cli::LoadModel(demo ? "models/demo" : recorded));
  TESSERA_ASSIGN_OR_RETURN(family.engram,
                           cli::ResidentEngram(*family.model, Clock::Real()));
  TESSERA_ASSIGN_OR_RETURN(const auto golden,
                           model::Checkpoint::OpenFile(recorded + "/golden.safetensors"));
  const int length = demo ? 300 : 331;
  TESSERA_ASSIGN_OR_RETURN(const auto tensor,
                           golden->Find(fmt::format("prompt{}.ids", length)));
  const auto* ids = reinterpret_cast<const int32_t*>(tensor.data.data());
  family.ids.assign(ids, ids + length);
  return family;
}

}  // namespace tessera::testing
