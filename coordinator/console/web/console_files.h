// The files of the console's page, as the build put them into the binary: HTML, styles
// and ES modules, which load nothing from anywhere else.
#ifndef TESSERA_COORDINATOR_CONSOLE_WEB_CONSOLE_FILES_H_
#define TESSERA_COORDINATOR_CONSOLE_WEB_CONSOLE_FILES_H_

#include <span>

#include "common/embedded_file.h"

namespace tessera {

// In the order in which CMakeLists.txt lists them.
std::span<const EmbeddedFile> ConsoleFiles();

}  // namespace tessera

#endif  // TESSERA_COORDINATOR_CONSOLE_WEB_CONSOLE_FILES_H_
