// What each absl::StatusCode means in Tessera; one meaning per code, in every folder.
//
//   kInvalidArgument     the caller's fault, permanent: a bad request, file or flag
//   kNotFound            a named thing does not exist (model, file, tensor, request)
//   kFailedPrecondition  wrong state or placement version: refresh and retry
//   kResourceExhausted   shed load: a bounded queue, cache or quota is full
//   kUnavailable         a peer is gone: retry elsewhere
//   kDeadlineExceeded    the time budget is spent
//   kAborted             the group was torn down: rebuild the communicator
//   kCancelled           the caller went away
//   kDataLoss            corrupt weights, table or message
//   kUnimplemented       a valid request for something that this build or family does not
//   do kInternal            our bug
//
// Messages are lower case, without a period, and say what was seen and what was expected.
#ifndef TESSERA_COMMON_STATUS_H_
#define TESSERA_COMMON_STATUS_H_

#include <string_view>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "fmt/format.h"

namespace tessera {

// absl 20220623 takes its own string_view; these take fmt formats and give absl::Status.
template <typename... Args>
[[nodiscard]] absl::Status StatusF(absl::StatusCode code,
                                   fmt::format_string<Args...> format, Args&&... args) {
  return absl::Status(code, fmt::format(format, std::forward<Args>(args)...));
}

template <typename... Args>
[[nodiscard]] absl::Status InvalidArgumentF(fmt::format_string<Args...> format,
                                            Args&&... args) {
  return StatusF(absl::StatusCode::kInvalidArgument, format, std::forward<Args>(args)...);
}

template <typename... Args>
[[nodiscard]] absl::Status DataLossF(fmt::format_string<Args...> format, Args&&... args) {
  return StatusF(absl::StatusCode::kDataLoss, format, std::forward<Args>(args)...);
}

template <typename... Args>
[[nodiscard]] absl::Status InternalF(fmt::format_string<Args...> format, Args&&... args) {
  return StatusF(absl::StatusCode::kInternal, format, std::forward<Args>(args)...);
}

template <typename... Args>
[[nodiscard]] absl::Status UnavailableF(fmt::format_string<Args...> format,
                                        Args&&... args) {
  return StatusF(absl::StatusCode::kUnavailable, format, std::forward<Args>(args)...);
}

template <typename... Args>
[[nodiscard]] absl::Status DeadlineExceededF(fmt::format_string<Args...> format,
                                             Args&&... args) {
  return StatusF(absl::StatusCode::kDeadlineExceeded, format,
                 std::forward<Args>(args)...);
}

// The same status with `context: ` in front of its message; OK stays OK.
[[nodiscard]] inline absl::Status WithContext(const absl::Status& status,
                                              std::string_view context) {
  if (status.ok()) {
    return status;
  }
  return absl::Status(
      status.code(),
      fmt::format("{}: {}", context,
                  std::string_view(status.message().data(), status.message().size())));
}

}  // namespace tessera

#endif  // TESSERA_COMMON_STATUS_H_
