#include "kernels/backend_traits.h"

namespace tessera::kernels {

bool RunsInHostMemory(std::string_view backend) { return backend != "cuda"; }

std::string_view NumericsFamily(std::string_view backend) {
  return backend == "cuda" ? TESSERA_CUDA_FAMILY : backend;  // the build's
}

}  // namespace tessera::kernels
