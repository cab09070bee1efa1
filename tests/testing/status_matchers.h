// GoogleTest matchers for absl::Status and absl::StatusOr: IsOk, IsOkAndHolds, StatusIs.
//
// The Abseil that Debian 12 ships has none; the names and meanings are those of Abseil's
// later releases, so that an upgrade is a rename. For tests only: nothing that ships
// includes this.
#ifndef TESSERA_TESTS_TESTING_STATUS_MATCHERS_H_
#define TESSERA_TESTS_TESTING_STATUS_MATCHERS_H_

#include <ostream>
#include <string>
#include <type_traits>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "gmock/gmock.h"

namespace tessera::testing {

namespace internal {

inline const absl::Status& StatusOf(const absl::Status& status) { return status; }

template <typename T>
const absl::Status& StatusOf(const absl::StatusOr<T>& status_or) {
  return status_or.status();
}

// gmock asks for the message as std::string, whatever string_view Abseil was built with.
inline std::string MessageOf(const absl::Status& status) {
  return std::string(status.message().data(), status.message().size());
}

// Matches StatusOr<T> whose value matches `inner`.
template <typename InnerMatcher>
class IsOkAndHoldsMatcher {
 public:
  explicit IsOkAndHoldsMatcher(InnerMatcher inner) : inner_(std::move(inner)) {}

  // gmock asks for the matcher of the very type that the test passes, reference and all.
  template <typename StatusOrType>
  operator ::testing::Matcher<StatusOrType>()
      const {  // NOLINT(google-explicit-constructor)
    return ::testing::Matcher<StatusOrType>(new Typed<StatusOrType>(inner_));
  }

 private:
  template <typename StatusOrType>
  class Typed : public ::testing::MatcherInterface<StatusOrType> {
   public:
    using Value = typename std::decay_t<StatusOrType>::value_type;

    explicit Typed(const InnerMatcher& inner)
        : inner_(::testing::SafeMatcherCast<const Value&>(inner)) {}

    void DescribeTo(std::ostream* os) const override {
      *os << "is OK and has a value that ";
      inner_.DescribeTo(os);
    }

    bool MatchAndExplain(StatusOrType actual,
                         ::testing::MatchResultListener* listener) const override {
      if (!actual.ok()) {
        *listener << "which has status " << actual.status().ToString();
        return false;
      }
      return inner_.MatchAndExplain(*actual, listener);
    }

   private:
    ::testing::Matcher<const Value&> inner_;
  };

  InnerMatcher inner_;
};

}  // namespace internal

// Matches an OK Status or StatusOr.
MATCHER(IsOk, negation ? "is not OK" : "is OK") {
  const absl::Status& status = internal::StatusOf(arg);
  if (!status.ok()) {
    *result_listener << "which has status " << status.ToString();
  }
  return status.ok();
}

// Matches a Status or StatusOr with this code, whatever its message.
MATCHER_P(StatusIs, code, "has status code " + absl::StatusCodeToString(code)) {
  const absl::Status& status = internal::StatusOf(arg);
  *result_listener << "which has status " << status.ToString();
  return status.code() == code;
}

// Matches a Status or StatusOr with this code and a message that matches
// `message_matcher` (a string or a matcher of std::string, such as HasSubstr).
MATCHER_P2(StatusIs, code, message_matcher,
           "has status code " + absl::StatusCodeToString(code) + " and a message that " +
               ::testing::DescribeMatcher<std::string>(message_matcher)) {
  const absl::Status& status = internal::StatusOf(arg);
  *result_listener << "which has status " << status.ToString();
  return status.code() == code &&
         ::testing::ExplainMatchResult(message_matcher, internal::MessageOf(status),
                                       result_listener);
}

// Matches a StatusOr that is OK and whose value equals, or matches, `inner`.
template <typename InnerMatcher>
internal::IsOkAndHoldsMatcher<std::decay_t<InnerMatcher>> IsOkAndHolds(
    InnerMatcher&& inner) {
  return internal::IsOkAndHoldsMatcher<std::decay_t<InnerMatcher>>(
      std::forward<InnerMatcher>(inner));
}

}  // namespace tessera::testing

#endif  // TESSERA_TESTS_TESTING_STATUS_MATCHERS_H_
