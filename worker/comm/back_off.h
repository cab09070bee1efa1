// BackOff: the pause between two polls of whoever waits for a device or its peers.
#ifndef TESSERA_WORKER_COMM_BACK_OFF_H_
#define TESSERA_WORKER_COMM_BACK_OFF_H_

#include <thread>

#include "absl/time/time.h"

#include "common/clock.h"

namespace tessera::worker {

// Polls alone at first, since a decode step's exchange takes some 100 microseconds; past
// that the peer is computing, and polling would take its core. Short sleeps until well
// beyond a decode step, which a long one at its end would lengthen by percents.
inline constexpr int kYieldPolls = 64;
inline constexpr int kShortSleepPolls = kYieldPolls + 1000;
inline constexpr absl::Duration kShortSleep = absl::Microseconds(50);
inline constexpr absl::Duration kLongSleep = absl::Microseconds(500);

// After the poll number `num_polls`, counted from 0.
inline void BackOff(int num_polls, Clock* clock) {
  if (num_polls < kYieldPolls) {
    std::this_thread::yield();
  } else {
    clock->Sleep(num_polls < kShortSleepPolls ? kShortSleep : kLongSleep);
  }
}

}  // namespace tessera::worker

#endif  // TESSERA_WORKER_COMM_BACK_OFF_H_
