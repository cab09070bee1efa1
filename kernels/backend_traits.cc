#include "kernels/backend_traits.h"

namespace tessera::kernels {

bool RunsInHostMemory(std::string_view backend) { return backend != "cuda"; }

std::string_view NumericsFamily(std::string_view backend) {
  return backend == "cuda" ? "cuda_sim" : backend;
}

}  // namespace tessera::kernels
