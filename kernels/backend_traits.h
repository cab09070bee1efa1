// What is known of a backend by its name, before one is made.
#ifndef TESSERA_KERNELS_BACKEND_TRAITS_H_
#define TESSERA_KERNELS_BACKEND_TRAITS_H_

#include <string_view>

namespace tessera::kernels {

// True where ops read and write any memory of the host. False where they know memory of
// KernelBackend::Allocate alone, so that weights, too, must be copied there. The host may
// read and write what Allocate gave on every backend, while no op that uses it has been
// enqueued since the last Synchronize.
bool RunsInHostMemory(std::string_view backend);

// The first part of the backend's numerics ids: its name, or what stands in for its
// device in a build without GPU code ("cuda_sim").
std::string_view NumericsFamily(std::string_view backend);

}  // namespace tessera::kernels

#endif  // TESSERA_KERNELS_BACKEND_TRAITS_H_
