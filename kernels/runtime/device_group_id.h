// DeviceGroupId and DeviceIdentity: what ranks tell each other before their devices form
// a group (kernels/local_devices.h).
#ifndef TESSERA_KERNELS_RUNTIME_DEVICE_GROUP_ID_H_
#define TESSERA_KERNELS_RUNTIME_DEVICE_GROUP_ID_H_

#include <array>
#include <cstddef>

namespace tessera::kernels {

// Names a group that is to be formed, so that its ranks find each other: NCCL's
// ncclUniqueId. Opaque: only whoever makes groups looks inside.
struct DeviceGroupId {
  static constexpr size_t kBytes = 128;
  std::array<std::byte, kBytes> bytes = {};
};

// The same where two ranks have one device, on any host.
using DeviceIdentity = std::array<std::byte, 16>;

}  // namespace tessera::kernels

#endif  // TESSERA_KERNELS_RUNTIME_DEVICE_GROUP_ID_H_
