// What /admin/v1/experts says, as JSON: how many items went to each routed expert of each
// MoE layer, and which rank holds the expert. About 13 bytes per layer and expert: 0.2 MB
// of a V3, for a page that asks every few seconds.
#ifndef TESSERA_COORDINATOR_API_ADMIN_ADMIN_EXPERTS_H_
#define TESSERA_COORDINATOR_API_ADMIN_ADMIN_EXPERTS_H_

#include <string>

#include "coordinator/console/expert_loads.h"

namespace tessera::coordinator {

// An object in one line; one without layers if `loads` is null.
std::string ExpertsJson(ExpertLoads* loads);

}  // namespace tessera::coordinator

#endif  // TESSERA_COORDINATOR_API_ADMIN_ADMIN_EXPERTS_H_
