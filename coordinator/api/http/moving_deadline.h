// MovingDeadline: a deadline that is moved with every read and write, over one Asio timer
// that is hardly ever touched: moving the deadline to a later time costs nothing, because
// a timer that fires too early looks again. Internal to the server; brings Asio along.
#ifndef TESSERA_COORDINATOR_API_HTTP_MOVING_DEADLINE_H_
#define TESSERA_COORDINATOR_API_HTTP_MOVING_DEADLINE_H_

#include "absl/time/time.h"
#include "boost/asio/io_context.hpp"
#include "boost/asio/steady_timer.hpp"

namespace tessera::coordinator {

// External synchronisation: the strand that its handlers are bound to.
class MovingDeadline {
 public:
  explicit MovingDeadline(boost::asio::io_context& io) : timer_(io) {}

  // `make_handler()` makes what the timer calls with an error code, at `when` or before;
  // it must call IsDue unless the error is set.
  template <typename MakeHandler>
  void Set(absl::Time when, absl::Time now, const MakeHandler& make_handler) {
    deadline_ = when;
    if (armed_ > deadline_) {
      Arm(now, make_handler);
    }
  }

  void Clear() { deadline_ = absl::InfiniteFuture(); }

  // Whether the deadline passed, which clears it; else the timer runs again if it must.
  template <typename MakeHandler>
  bool IsDue(absl::Time now, const MakeHandler& make_handler) {
    armed_ = absl::InfiniteFuture();
    if (now < deadline_) {
      if (deadline_ != absl::InfiniteFuture()) {
        Arm(now, make_handler);
      }
      return false;
    }
    Clear();
    return true;
  }

  // The handler that is pending runs with an error.
  void Cancel() { timer_.cancel(); }

 private:
  template <typename MakeHandler>
  void Arm(absl::Time now, const MakeHandler& make_handler) {
    armed_ = deadline_;
    timer_.expires_after(absl::ToChronoNanoseconds(deadline_ - now));
    timer_.async_wait(make_handler());
  }

  boost::asio::steady_timer timer_;
  absl::Time deadline_ = absl::InfiniteFuture();
  absl::Time armed_ =
      absl::InfiniteFuture();  // when the timer fires; infinite: not running
};

}  // namespace tessera::coordinator

#endif  // TESSERA_COORDINATOR_API_HTTP_MOVING_DEADLINE_H_
