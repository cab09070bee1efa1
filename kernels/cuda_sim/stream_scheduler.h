// StreamScheduler: the queues of operations of a simulated machine, and who runs next.
// Operations of one stream run in order; of several, a random one whose turn has come
// runs, so that what no event orders happens in any order. The branches of a graph are
// such queues while it runs, beside all others. Nothing runs by itself: calls of the host
// make progress, a random amount at each enqueue, all that is needed at a
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

// An operation that has begun and ends once others have come so far: a collective that
// waits for its other ranks, a graph for its branches.
class OpenOp {
 public:
  virtual ~OpenOp() = default;
  virtual bool CanEnd() const = 0;
  // Once it can; what it waited for goes into `clock`, that of its stream.
  virtual absl::Status End(Clock& clock) = 0;
  // Nothing in the machine can go on: what this operation misses, or nothing.
  virtual std::string Stuck() = 0;
};

struct StreamOp {
  enum class Kind { kRun, kRecord, kWait, kOpen, kGraph };
  Kind kind = Kind::kRun;
  std::string name;
  cuda::LaunchConfig config;
  std::function<absl::Status(const Operation&)> run;  // kRun
  // kOpen: when its turn comes. The operation's clock is the callee's to copy.
  std::function<std::shared_ptr<OpenOp>(const Operation&)> open;
  std::shared_ptr<EventRecord> record;  // kRecord, kWait
  std::shared_ptr<Capture> graph;       // kGraph
  std::shared_ptr<OpenOp> opened;       // kOpen, kGraph: from its turn on
  Clock host_clock;                     // what the host had waited for when it enqueued
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
// once captured, but for the numbers and who replays it.
struct Capture {
  struct Part {
    StreamQueue* stream = nullptr;  // while capturing
    uint16_t virtual_id = 0;
    uint64_t last_number = 0;  // of the operations that replays ran as virtual_id
    Clock clock;               // counts captured operations
    std::vector<StreamOp> ops;
  };
  std::vector<Part> parts;
  bool closed = false;     // captured to its end
  bool replaying = false;  // by one launch at a time

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
  // Runs what can run until the record is done; whether it is.
  absl::StatusOr<bool> RunTowards(const EventRecord& record);
  // The same until the queue is empty.
  absl::StatusOr<bool> RunTowards(StreamQueue& queue);

  void HostWaitedFor(const Clock& clock) { host_clock_.Join(clock); }
  // What the host has waited for and done so far.
  const Clock& host_clock() const { return host_clock_; }
  ScheduleRandom& random() { return random_; }

 private:
  using Queues = std::vector<std::shared_ptr<StreamQueue>>;
  class Replay;

  // Runs the next operation of a random stream that can go on. False if none can.
  absl::StatusOr<bool> Step();
  absl::Status RunHead(StreamQueue& queue);
  // Begins those whose turn has come.
  void OpenHeads();
  // Begins the next operation: it gets its number and its clock.
  static Operation Begin(StreamQueue& queue, StreamOp& op);
  // kInternal: what the operations that have begun are waiting for.
  absl::Status Deadlock() const;

  ScheduleRandom random_;
  Queues queues_;
  uint16_t num_ids_ = 0;
  Clock host_clock_;
};

}  // namespace tessera::kernels::cuda_sim

#endif  // TESSERA_KERNELS_CUDA_SIM_STREAM_SCHEDULER_H_
