// The JSON files of this folder, as the build put them into the binary: base.json first,
// then one fragment per dialect.
#ifndef TESSERA_COORDINATOR_API_OPENAPI_OPENAPI_FRAGMENTS_H_
#define TESSERA_COORDINATOR_API_OPENAPI_OPENAPI_FRAGMENTS_H_

#include <span>

#include "common/embedded_file.h"

namespace tessera {

// In the order in which CMakeLists.txt lists them.
std::span<const EmbeddedFile> OpenApiFragments();

}  // namespace tessera

#endif  // TESSERA_COORDINATOR_API_OPENAPI_OPENAPI_FRAGMENTS_H_
