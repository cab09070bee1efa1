#include "coordinator/api/admin/admin_experts.h"

#include <cmath>
#include <cstdint>
#include <optional>
#include <span>
#include <utility>

#include "nlohmann/json.hpp"

#include "coordinator/api/json_fields.h"

namespace tessera::coordinator {
namespace {

using nlohmann::json;

json Imbalance(std::span<const uint64_t> counts) {
  const std::optional<double> ratio = ImbalanceOf(counts);
  return ratio.has_value() ? json(std::round(*ratio * 1000) / 1000) : json(nullptr);
}

}  // namespace

std::string ExpertsJson(ExpertLoads* loads) {
  const ExpertShape none;
  const ExpertShape& shape = loads != nullptr ? loads->shape() : none;
  const ExpertLoadCounts counts = loads != nullptr ? loads->Read() : ExpertLoadCounts();
  json layers = json::array();
  for (int64_t layer = 0; layer < shape.num_layers; ++layer) {
    const std::span<const uint64_t> recent = counts.recent_of(shape, layer);
    const std::span<const uint64_t> total = counts.total_of(shape, layer);
    layers.push_back({{"layer", shape.first_layer + layer},
                      {"recent", recent},
                      {"total", total},
                      {"recent_imbalance", Imbalance(recent)},
                      {"total_imbalance", Imbalance(total)}});
  }
  return DumpJson({{"window_s", absl::ToDoubleSeconds(ExpertLoads::kSlice) *
                                    static_cast<double>(ExpertLoads::kSlices)},
                   {"rank_of_expert", shape.rank_of_expert},
                   {"layers", std::move(layers)}});
}

}  // namespace tessera::coordinator
