// Checks of invariants. A failed check is a bug of ours: it prints the expression, the
// values and the place, and aborts. Anything that input, a file or a peer can cause is a
// Status instead.
#ifndef TESSERA_COMMON_CHECK_H_
#define TESSERA_COMMON_CHECK_H_

#include <string>

#include "fmt/format.h"

namespace tessera::internal {

// Prints to stderr and aborts.
[[noreturn]] void CheckFailed(const char* file, int line, const char* expression,
                              const std::string& detail);

}  // namespace tessera::internal

// Always on.
#define TESSERA_CHECK(condition)                                            \
  do {                                                                      \
    if (!(condition)) [[unlikely]] {                                        \
      ::tessera::internal::CheckFailed(__FILE__, __LINE__, #condition, ""); \
    }                                                                       \
  } while (false)

// Always on; prints both values. `op` is a comparison operator.
#define TESSERA_CHECK_OP(op, a, b)                                                       \
  do {                                                                                   \
    const auto& tessera_a_ = (a);                                                        \
    const auto& tessera_b_ = (b);                                                        \
    if (!(tessera_a_ op tessera_b_)) [[unlikely]] {                                      \
      ::tessera::internal::CheckFailed(__FILE__, __LINE__, #a " " #op " " #b,            \
                                       fmt::format("{} vs {}", tessera_a_, tessera_b_)); \
    }                                                                                    \
  } while (false)

#define TESSERA_CHECK_EQ(a, b) TESSERA_CHECK_OP(==, a, b)
#define TESSERA_CHECK_LE(a, b) TESSERA_CHECK_OP(<=, a, b)
#define TESSERA_CHECK_LT(a, b) TESSERA_CHECK_OP(<, a, b)

// For hot paths: on in debug and sanitizer builds only.
#ifdef NDEBUG
#define TESSERA_DCHECK(condition) \
  do {                            \
    (void)sizeof(!(condition));   \
  } while (false)
#else
#define TESSERA_DCHECK(condition) TESSERA_CHECK(condition)
#endif

#endif  // TESSERA_COMMON_CHECK_H_
