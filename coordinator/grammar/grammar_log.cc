// What the grammar library says: failures are exceptions that grammar_compiler.cc turns
// into a status, warnings go to the log. The library declares these functions and leaves
// them to its user (XGRAMMAR_LOG_CUSTOMIZE).
#include <exception>
#include <stdexcept>
#include <string>

#include "common/log.h"

namespace xgrammar {

[[noreturn]] void LogFatalImpl(const std::string& file, int line,
                               const std::string& message);
void LogMessageImpl(const std::string& file, int line, int level,
                    const std::string& message);

void LogFatalImpl(const std::string& /*file*/, int /*line*/, const std::string& message) {
  // A failed check puts its expression first: "Check failed: (x) is false: ".
  const std::string marker = "is false: ";
  const size_t at = message.find(marker);
  // The library promises its callers an exception, which our own code does not throw.
  std::rethrow_exception(std::make_exception_ptr(std::runtime_error(
      at == std::string::npos ? message : message.substr(at + marker.size()))));
}

void LogMessageImpl(const std::string& /*file*/, int /*line*/, int /*level*/,
                    const std::string& message) {
  tessera::log::Debug("grammar", "the library says", {{"text", message}});
}

}  // namespace xgrammar
