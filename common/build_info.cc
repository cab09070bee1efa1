#include "common/build_info.h"

namespace tessera {

std::string_view Version() { return TESSERA_VERSION; }

std::string_view Compiler() { return TESSERA_COMPILER; }

}  // namespace tessera
