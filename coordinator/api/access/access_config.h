// AccessConfig: who may call and how much: keys with their owners, and what each tenant
// is granted. Flags and the access file fill it; AccessControl enforces it. A plain
// value.
#ifndef TESSERA_COORDINATOR_API_ACCESS_ACCESS_CONFIG_H_
#define TESSERA_COORDINATOR_API_ACCESS_ACCESS_CONFIG_H_

#include <vector>

#include "coordinator/api/access/api_keys.h"
#include "coordinator/requests/tenant_policy.h"

namespace tessera::coordinator {

struct AccessConfig {
  std::vector<ApiKeyRecord> keys;  // none: everybody is let in
  std::vector<TenantPolicy> tenants;
  // Of every tenant that `tenants` does not name; its own name does not matter.
  TenantPolicy others;
};

}  // namespace tessera::coordinator

#endif  // TESSERA_COORDINATOR_API_ACCESS_ACCESS_CONFIG_H_
