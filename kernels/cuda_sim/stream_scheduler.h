// StreamScheduler: the queues of operations of a simulated machine, and who runs next.
// Operations of one stream run in order; of several, a random one whose turn has come
// runs, so that what no event orders happens in any order. Nothing runs by itself: calls
// of the host make progress, a random amount at each enqueue, all that is needed at a
// synchronisation.
#ifndef TESSERA_KERNELS_CUDA_SIM_STREAM_SCHEDULER_H_
#define TESSERA_KERNELS_CUDA_SIM_STREAM_SCHEDULER_H_

#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

#include "kernels/cuda_sim/access_checker.h"
#include "kernels/cuda_sim/schedule_random.h"
#include "kernels/cuda_sim/shadow.h"

namespace tessera::kernels::cuda_sim {

struct Capture;

// One cudaEventRecord: done once its stream came so far.
struct EventRecord {
  bool done = false;
  Clock clock;
  bool captured = false;           // recorded while capturing
  std::weak_ptr<Capture> capture;  // then; the capture itself owns its records
};

struct StreamOp {
  enum class Kind { kRun, kRecord, kWait };
  Kind kind = Kind::kRun;
  std::string name;
  cuda::LaunchConfig config;
  std::function<absl::Status(const Operation&)> run;  // kRun
  std::shared_ptr<EventRecord> record;                // kRecord, kWait
  Clock host_clock;  // what the host had waited for when it enqueued
};

struct StreamQueue {
  uint16_t id = 0;
  int device = 0;
  Clock clock;  // of what has run, with what that waited for
  std::deque<StreamOp> ops;
  std::shared_ptr<Capture> capture;  // where operations go while capturing
  bool in_graph = false;
};

// What capture recorded: one part per stream, the first that of the origin. Immutable
// once captured, but for the numbers.
struct Capture {
  struct Part {
    StreamQueue* stream = nullptr;  // while capturing
    uint16_t virtual_id = 0;
    uint64_t last_number = 0;  // of the operations that replays ran as virtual_id
    Clock clock;               // counts captured operations
    std::vector<StreamOp> ops;
  };
  std::vector<Part> parts;
  bool closed = false;  // captured to its end

  Part* PartOf(const StreamQueue* queue);
};

// External synchronisation.
class StreamScheduler {
 public:
  static constexpr size_t kMaxQueuedOps = 4096;  // of a stream; then the oldest run
  static constexpr uint16_t kMaxStreams = 4096;

  explicit StreamScheduler(uint64_t seed) : random_(seed) {}

  // kResourceExhausted after kMaxStreams.
  absl::StatusOr<std::shared_ptr<StreamQueue>> NewQueue(int device);
  absl::StatusOr<uint16_t> NewStreamId();
  // Drains the queue and forgets it.
  absl::Status Remove(const std::shared_ptr<StreamQueue>& queue);

  // Into the capture, if the stream is in one.
  absl::Status Enqueue(StreamQueue& queue, StreamOp op);
  absl::Status Drain(StreamQueue& queue);
  absl::Status DrainDevice(int device);
  // kInternal if nothing can make it done.
  absl::Status RunUntilDone(const EventRecord& record);
  // Runs a captured graph as part of `launch`, whose queue is `queue`.
  absl::Status RunCapture(Capture& capture, StreamQueue& queue);

  void HostWaitedFor(const Clock& clock) { host_clock_.Join(clock); }
  ScheduleRandom& random() { return random_; }

 private:
  using Queues = std::vector<std::shared_ptr<StreamQueue>>;

  // Runs the next operation of a random stream that can go on. False if none can.
  absl::StatusOr<bool> Step(const Queues& queues);
  absl::Status RunHead(StreamQueue& queue);

  ScheduleRandom random_;
  Queues queues_;
  uint16_t num_ids_ = 0;
  Clock host_clock_;
};

}  // namespace tessera::kernels::cuda_sim

#endif  // TESSERA_KERNELS_CUDA_SIM_STREAM_SCHEDULER_H_
