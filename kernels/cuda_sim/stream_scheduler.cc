#include "kernels/cuda_sim/stream_scheduler.h"

#include <algorithm>
#include <unordered_map>
#include <utility>

#include "fmt/format.h"

#include "common/status_macros.h"

namespace tessera::kernels::cuda_sim {
namespace {

// Operations that an enqueue runs, at most: from a device that is far behind to one that
// keeps up.
constexpr size_t kMaxStepsPerEnqueue = 3;

bool CanRun(const StreamQueue& queue) {
  if (queue.ops.empty()) {
    return false;
  }
  const StreamOp& op = queue.ops.front();
  switch (op.kind) {
    case StreamOp::Kind::kWait:
      return op.record->done;
    case StreamOp::Kind::kOpen:
    case StreamOp::Kind::kGraph:
      return op.opened != nullptr && op.opened->CanEnd();
    case StreamOp::Kind::kRun:
    case StreamOp::Kind::kRecord:
      break;
  }
  return true;
}

// The part's operations with event records of this replay.
std::deque<StreamOp> Replayed(
    const Capture::Part& part,
    std::unordered_map<const EventRecord*, std::shared_ptr<EventRecord>>& records) {
  std::deque<StreamOp> ops(part.ops.begin(), part.ops.end());
  for (StreamOp& op : ops) {
    if (op.record != nullptr) {
      std::shared_ptr<EventRecord>& replayed = records[op.record.get()];
      if (replayed == nullptr) {
        replayed = std::make_shared<EventRecord>();
      }
      op.record = replayed;
    }
  }
  return ops;
}

}  // namespace

// One launch of a graph: a queue for each of its parts, beside those of the streams.
class StreamScheduler::Replay final : public OpenOp {
 public:
  Replay(StreamScheduler* scheduler, std::shared_ptr<Capture> capture,
         const StreamQueue& queue)
      : scheduler_(*scheduler), capture_(std::move(capture)) {
    capture_->replaying = true;
    std::unordered_map<const EventRecord*, std::shared_ptr<EventRecord>> records;
    for (const Capture::Part& part : capture_->parts) {
      auto replay = std::make_shared<StreamQueue>();
      replay->id = part.virtual_id;
      replay->device = queue.device;
      replay->clock = queue.clock;
      // Launches of one graph follow each other, so this one is after the last.
      replay->clock.Set(part.virtual_id, part.last_number);
      replay->ops = Replayed(part, records);
      replay->in_graph = true;
      parts_.push_back(replay);
      scheduler_.queues_.push_back(std::move(replay));
    }
  }

  bool CanEnd() const override {
    return std::all_of(parts_.begin(), parts_.end(),
                       [](const auto& part) { return part->ops.empty(); });
  }
  absl::Status End(Clock& clock) override {
    for (size_t i = 0; i < parts_.size(); ++i) {
      capture_->parts[i].last_number = parts_[i]->clock.Of(parts_[i]->id);
      clock.Join(parts_[i]->clock);
      std::erase(scheduler_.queues_, parts_[i]);
    }
    capture_->replaying = false;
    return absl::OkStatus();
  }
  std::string Stuck() override { return ""; }  // its parts say more

 private:
  StreamScheduler& scheduler_;
  const std::shared_ptr<Capture> capture_;
  Queues parts_;
};

Capture::Part* Capture::PartOf(const StreamQueue* queue) {
  const auto found = std::find_if(parts.begin(), parts.end(),
                                  [&](const Part& part) { return part.stream == queue; });
  return found == parts.end() ? nullptr : &*found;
}

absl::StatusOr<uint16_t> StreamScheduler::NewStreamId() {
  if (num_ids_ >= kMaxStreams) {
    return absl::ResourceExhaustedError(
        fmt::format("{} streams were made, the limit", kMaxStreams));
  }
  return num_ids_++;
}

absl::StatusOr<std::shared_ptr<StreamQueue>> StreamScheduler::NewQueue(int device) {
  auto queue = std::make_shared<StreamQueue>();
  TESSERA_ASSIGN_OR_RETURN(queue->id, NewStreamId());
  queue->device = device;
  queues_.push_back(queue);
  return queue;
}

absl::Status StreamScheduler::Remove(const std::shared_ptr<StreamQueue>& queue) {
  if (queue->capture != nullptr) {  // which then cannot be ended
    queue->capture->PartOf(queue.get())->stream = nullptr;
    queue->capture = nullptr;
  }
  absl::Status drained = Drain(*queue);
  queues_.erase(std::find(queues_.begin(), queues_.end(), queue));
  return drained;
}

absl::Status StreamScheduler::Enqueue(StreamQueue& queue, StreamOp op) {
  if (queue.capture != nullptr) {
    Capture::Part& part = *queue.capture->PartOf(&queue);
    part.clock.Set(part.virtual_id, part.clock.Of(part.virtual_id) + 1);
    if (op.kind == StreamOp::Kind::kRecord) {
      op.record->clock = part.clock;
    } else if (op.kind == StreamOp::Kind::kWait) {
      part.clock.Join(op.record->clock);
    }
    part.ops.push_back(std::move(op));
    return absl::OkStatus();
  }
  op.host_clock = host_clock_;
  queue.ops.push_back(std::move(op));
  size_t steps = random_.Below(kMaxStepsPerEnqueue + 1);
  while (steps > 0 || queue.ops.size() > kMaxQueuedOps) {
    TESSERA_ASSIGN_OR_RETURN(const bool ran, Step());
    if (!ran) {
      break;
    }
    steps -= steps > 0 ? 1 : 0;
  }
  return absl::OkStatus();
}

Operation StreamScheduler::Begin(StreamQueue& queue, StreamOp& op) {
  queue.clock.Join(op.host_clock);
  const uint64_t number = queue.clock.Of(queue.id) + 1;
  queue.clock.Set(queue.id, number);
  return {.name = op.name,
          .config = op.config,
          .id = {queue.id, number},
          .clock = &queue.clock,
          .device = queue.device,
          .in_graph = queue.in_graph};
}

void StreamScheduler::OpenHeads() {
  // A graph adds queues, whose first operations are opened then.
  for (size_t i = 0; i < queues_.size(); ++i) {
    StreamQueue& queue = *queues_[i];
    if (queue.ops.empty() || queue.ops.front().opened != nullptr) {
      continue;
    }
    StreamOp& op = queue.ops.front();
    if (op.kind == StreamOp::Kind::kOpen) {
      op.opened = op.open(Begin(queue, op));
    } else if (op.kind == StreamOp::Kind::kGraph && !op.graph->replaying) {
      static_cast<void>(Begin(queue, op));
      op.opened = std::make_shared<Replay>(this, op.graph, queue);
    }
  }
}

absl::StatusOr<bool> StreamScheduler::Step() {
  OpenHeads();
  Queues ready;
  std::copy_if(queues_.begin(), queues_.end(), std::back_inserter(ready),
               [](const auto& queue) { return CanRun(*queue); });
  if (ready.empty()) {
    return false;
  }
  TESSERA_RETURN_IF_ERROR(RunHead(*ready[random_.Below(ready.size())]));
  return true;
}

absl::Status StreamScheduler::RunHead(StreamQueue& queue) {
  StreamOp op = std::move(queue.ops.front());
  queue.ops.pop_front();
  if (op.opened != nullptr) {
    return op.opened->End(queue.clock);
  }
  const Operation operation = Begin(queue, op);
  switch (op.kind) {
    case StreamOp::Kind::kRecord:
      op.record->clock = queue.clock;
      op.record->done = true;
      break;
    case StreamOp::Kind::kWait:
      queue.clock.Join(op.record->clock);
      break;
    case StreamOp::Kind::kRun:
      return op.run(operation);
    case StreamOp::Kind::kOpen:
    case StreamOp::Kind::kGraph:
      break;  // were opened
  }
  return absl::OkStatus();
}

absl::Status StreamScheduler::Deadlock() const {
  std::string missing;
  for (const auto& queue : queues_) {
    if (queue->ops.empty() || queue->ops.front().opened == nullptr) {
      continue;
    }
    const std::string stuck = queue->ops.front().opened->Stuck();
    missing = missing.empty() ? stuck : missing;
  }
  return absl::InternalError(
      missing.empty() ? "streams wait for events that are never reached" : missing);
}

absl::StatusOr<bool> StreamScheduler::RunTowards(StreamQueue& queue) {
  while (!queue.ops.empty()) {
    TESSERA_ASSIGN_OR_RETURN(const bool ran, Step());
    if (!ran) {
      return false;
    }
  }
  HostWaitedFor(queue.clock);
  return true;
}

absl::Status StreamScheduler::Drain(StreamQueue& queue) {
  TESSERA_ASSIGN_OR_RETURN(const bool done, RunTowards(queue));
  return done ? absl::OkStatus() : Deadlock();
}

absl::Status StreamScheduler::DrainDevice(int device) {
  for (const auto& queue : Queues(queues_)) {
    if (queue->device == device) {
      TESSERA_RETURN_IF_ERROR(Drain(*queue));
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<bool> StreamScheduler::RunTowards(const EventRecord& record) {
  while (!record.done) {
    TESSERA_ASSIGN_OR_RETURN(const bool ran, Step());
    if (!ran) {
      return false;
    }
  }
  HostWaitedFor(record.clock);
  return true;
}

absl::Status StreamScheduler::RunUntilDone(const EventRecord& record) {
  TESSERA_ASSIGN_OR_RETURN(const bool done, RunTowards(record));
  return done ? absl::OkStatus() : Deadlock();
}

}  // namespace tessera::kernels::cuda_sim
