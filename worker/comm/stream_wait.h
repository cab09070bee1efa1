// StreamWait: how a rank waits for its device's stream, in which collectives may wait for
// ranks that never come: it polls until the stream is done, a group of the rank has ended
// or its time is up. Where no group has collectives in the stream it is a plain wait.
#ifndef TESSERA_WORKER_COMM_STREAM_WAIT_H_
#define TESSERA_WORKER_COMM_STREAM_WAIT_H_

#include <initializer_list>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"

#include "common/clock.h"
#include "kernels/runtime/stream.h"
#include "worker/comm/communicator.h"

namespace tessera::worker {

// Step thread only.
class StreamWait {
 public:
  // All groups of the rank, which must outlive it; null for those that it does not have.
  StreamWait(std::initializer_list<Communicator*> groups, Clock* clock);

  // Until all that is enqueued has run. kDeadlineExceeded after the shortest timeout of
  // the groups, counted from the call, without what Stream::Poll takes; kAborted if one
  // of them has ended; kInternal: an op faulted. After an error all groups of the rank
  // have ended, so that no other rank waits for this one, and nothing in the stream
  // waits.
  absl::Status Synchronize(kernels::Stream& stream);

  // The first error of Synchronize since it was last taken; OK if there was none. What
  // follows an error is kAborted, so it is the reason of a step that failed after one.
  absl::Status TakeError() { return std::exchange(error_, absl::OkStatus()); }

  // After a step that failed in its middle for `reason`: ends the groups, as above, if
  // other ranks may wait in a stream for the rest of this one's.
  void EndGroups(std::string_view reason);
  // The same before the stream goes, if it would wait for another rank.
  void GiveUp(kernels::Stream& stream, std::string_view reason);

 private:
  absl::Status CheckGroups() const;

  std::vector<Communicator*> groups_;
  std::vector<Communicator*> on_stream_;  // those with collectives in a stream
  absl::Duration timeout_;
  absl::Status error_;
  Clock* const clock_;
};

}  // namespace tessera::worker

#endif  // TESSERA_WORKER_COMM_STREAM_WAIT_H_
