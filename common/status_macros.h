// The status macros: return early on an error, or bind a value. There are three in the
// whole repository (the CUDA twin lives in kernels/cuda); context is added by the
// message, never by a new macro. Names follow Abseil's later releases so that an upgrade
// is a rename.
#ifndef TESSERA_COMMON_STATUS_MACROS_H_
#define TESSERA_COMMON_STATUS_MACROS_H_

#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

// Evaluates an absl::Status expression once and returns it from the function if it is not
// OK.
#define TESSERA_RETURN_IF_ERROR(expr)      \
  do {                                     \
    absl::Status tessera_status_ = (expr); \
    if (!tessera_status_.ok()) {           \
      return tessera_status_;              \
    }                                      \
  } while (false)

#define TESSERA_MACRO_CONCAT_INNER_(a, b) a##b
#define TESSERA_MACRO_CONCAT_(a, b) TESSERA_MACRO_CONCAT_INNER_(a, b)

// TESSERA_ASSIGN_OR_RETURN(auto x, MakeX()): binds the value, or returns the status.
#define TESSERA_ASSIGN_OR_RETURN(lhs, expr)                                            \
  TESSERA_ASSIGN_OR_RETURN_INNER_(TESSERA_MACRO_CONCAT_(tessera_status_or_, __LINE__), \
                                  lhs, expr)

#define TESSERA_ASSIGN_OR_RETURN_INNER_(status_or, lhs, expr) \
  auto status_or = (expr);                                    \
  if (!status_or.ok()) {                                      \
    return std::move(status_or).status();                     \
  }                                                           \
  lhs = std::move(status_or).value()

#endif  // TESSERA_COMMON_STATUS_MACROS_H_
