#include "kernels/cuda_sim/sim_stream.h"

#include <algorithm>
#include <cstring>
#include <string>
#include <utility>
#include <vector>

#include "fmt/format.h"

#include "common/status.h"
#include "common/status_macros.h"
#include "kernels/cuda_sim/call_fault.h"

namespace tessera::kernels::cuda_sim {
namespace {

// The rows of pageable memory one after the other.
std::shared_ptr<std::vector<std::byte>> Staged(const void* from, const CopyShape& shape) {
  auto staged = std::make_shared<std::vector<std::byte>>(shape.row_bytes * shape.rows);
  for (size_t row = 0; row < shape.rows; ++row) {
    std::memcpy(staged->data() + row * shape.row_bytes,
                static_cast<const std::byte*>(from) + row * shape.from_pitch,
                shape.row_bytes);
  }
  return staged;
}

struct CopySides {
  bool check_to = true;  // memory that the machine knows
  bool check_from = true;
};

void CopyRows(AccessChecker& checker, void* to, const void* from, const CopyShape& shape,
              const CopySides& sides) {
  for (size_t row = 0; row < shape.rows; ++row) {
    const auto* const source =
        static_cast<const std::byte*>(from) + row * shape.from_pitch;
    auto* const target = static_cast<std::byte*>(to) + row * shape.to_pitch;
    if ((sides.check_from &&
         !checker.CopyRange(source, shape.row_bytes, AccessKind::kRead)) ||
        (sides.check_to &&
         !checker.CopyRange(target, shape.row_bytes, AccessKind::kWrite))) {
      return;
    }
    std::memcpy(target, source, shape.row_bytes);
  }
}

}  // namespace

int64_t SimGraph::num_nodes() const {
  int64_t count = 0;
  for (const Capture::Part& part : capture_->parts) {
    count += std::count_if(part.ops.begin(), part.ops.end(), [](const StreamOp& op) {
      return op.kind == StreamOp::Kind::kRun || op.kind == StreamOp::Kind::kOpen;
    });
  }
  return count;
}

absl::Status SimEvent::Synchronize() {
  MutexLock lock(&machine_->mutex_);
  if (record_ == nullptr) {
    return absl::OkStatus();
  }
  if (record_->captured) {
    return absl::FailedPreconditionError("an event of a capture has no time");
  }
  ++machine_->num_host_waits_;
  return machine_->Note(machine_->scheduler_.RunUntilDone(*record_));
}

absl::StatusOr<bool> SimEvent::Query() {
  MutexLock lock(&machine_->mutex_);
  if (record_ == nullptr) {
    return true;
  }
  if (record_->captured) {
    return absl::FailedPreconditionError("an event of a capture has no time");
  }
  const absl::StatusOr<bool> done = machine_->scheduler_.RunTowards(*record_);
  TESSERA_RETURN_IF_ERROR(machine_->Note(done.status()));
  machine_->num_host_waits_ += *done ? 1 : 0;
  return done;
}

absl::StatusOr<std::unique_ptr<SimStream>> SimStream::Create(
    std::shared_ptr<SimMachine> machine, int device) {
  TESSERA_RETURN_IF_ERROR(machine->CheckDevice(device));
  std::shared_ptr<StreamQueue> queue;
  {
    MutexLock lock(&machine->mutex_);
    TESSERA_ASSIGN_OR_RETURN(queue, machine->scheduler_.NewQueue(device));
  }
  return std::unique_ptr<SimStream>(new SimStream(std::move(machine), std::move(queue)));
}

SimStream::SimStream(std::shared_ptr<SimMachine> machine,
                     std::shared_ptr<StreamQueue> queue)
    : machine_(std::move(machine)), queue_(std::move(queue)) {}

SimStream::~SimStream() {
  MutexLock lock(&machine_->mutex_);
  // An error stays with the machine, where the next Synchronize finds it.
  static_cast<void>(machine_->Note(machine_->scheduler_.Remove(queue_)));
}

absl::Status SimStream::NotWhileCapturing(std::string_view call) const {
  if (queue_->capture == nullptr) {
    return absl::OkStatus();
  }
  return absl::FailedPreconditionError(
      fmt::format("{} on stream {}, which is being captured", call, queue_->id));
}

absl::Status SimStream::Enqueue(std::string_view name, cuda::LaunchConfig config,
                                std::function<absl::Status(const Operation&)> run) {
  StreamOp op;
  op.name = std::string(name);
  op.config = config;
  op.run = std::move(run);
  return machine_->scheduler_.Enqueue(*queue_, std::move(op));
}

absl::Status SimStream::LaunchKernel(std::string_view name,
                                     const cuda::LaunchConfig& config, KernelBody body) {
  MutexLock lock(&machine_->mutex_);
  ++machine_->num_launches_;
  SimMachine& machine = *machine_;
  return Enqueue(name, config,
                 [&machine, body = std::move(body)](const Operation& operation)
                     ABSL_NO_THREAD_SAFETY_ANALYSIS {
                       machine.checker_.Begin(operation);
                       return machine.runner_.Run(body, machine.scheduler_.random());
                     });
}

absl::Status SimStream::MemcpyAsync(void* to, const void* from, size_t bytes) {
  return Memcpy2DAsync(to, from, {.row_bytes = bytes});
}

absl::Status SimStream::Memcpy2DAsync(void* to, const void* from,
                                      const CopyShape& shape) {
  TESSERA_RETURN_IF_ERROR(CallFault::Check(CallFault::Call::kMemcpy));
  if (shape.row_bytes == 0 || shape.rows == 0) {
    return absl::OkStatus();
  }
  MutexLock lock(&machine_->mutex_);
  SimMachine& machine = *machine_;
  const CopySides sides = {.check_to = machine_->memory_.Find(to) != nullptr,
                           .check_from = machine_->memory_.Find(from) != nullptr};
  if (!sides.check_to || !sides.check_from) {
    TESSERA_RETURN_IF_ERROR(NotWhileCapturing("a copy of pageable memory"));
  }
  if (!sides.check_to && !sides.check_from) {
    return absl::InvalidArgumentError("a copy between two places outside the devices");
  }
  std::shared_ptr<std::vector<std::byte>> staged;
  CopyShape copied = shape;
  if (!sides.check_from) {
    staged = Staged(from, shape);
    from = staged->data();
    copied.from_pitch = shape.row_bytes;
  }
  TESSERA_RETURN_IF_ERROR(
      Enqueue("copy", {},
              [&machine, to, from, copied, sides, staged](const Operation& operation)
                  ABSL_NO_THREAD_SAFETY_ANALYSIS {
                    machine.checker_.Begin(operation);
                    CopyRows(machine.checker_, to, from, copied, sides);
                    return absl::OkStatus();
                  }));
  if (sides.check_to) {
    return absl::OkStatus();
  }
  ++machine_->num_host_waits_;
  return machine_->Note(machine_->scheduler_.Drain(*queue_));
}

absl::Status SimStream::MemsetAsync(void* to, uint8_t value, size_t bytes) {
  MutexLock lock(&machine_->mutex_);
  SimMachine& machine = *machine_;
  return Enqueue("memset", {},
                 [&machine, to, value, bytes](const Operation& operation)
                     ABSL_NO_THREAD_SAFETY_ANALYSIS {
                       machine.checker_.Begin(operation);
                       if (machine.checker_.CopyRange(to, bytes, AccessKind::kWrite)) {
                         std::memset(to, value, bytes);
                       }
                       return absl::OkStatus();
                     });
}

absl::StatusOr<void*> SimStream::MallocAsync(size_t bytes) {
  MutexLock lock(&machine_->mutex_);
  TESSERA_RETURN_IF_ERROR(NotWhileCapturing("an allocation"));
  SimMachine& machine = *machine_;
  TESSERA_ASSIGN_OR_RETURN(
      Allocation * allocation,
      machine_->memory_.Allocate(queue_->device, bytes, AllocationState::kReserved));
  void* const memory = allocation->data;
  TESSERA_RETURN_IF_ERROR(Enqueue(
      "allocation", {},
      [&machine, memory](const Operation& operation) ABSL_NO_THREAD_SAFETY_ANALYSIS {
        // Gone if another stream freed it too early, which is a finding.
        Allocation* const made = machine.memory_.FindUnfreed(memory);
        if (made != nullptr) {
          made->state = AllocationState::kLive;
          made->allocated_by = operation.id;
        }
        return absl::OkStatus();
      }));
  return memory;
}

absl::Status SimStream::FreeAsync(void* memory) {
  MutexLock lock(&machine_->mutex_);
  TESSERA_RETURN_IF_ERROR(NotWhileCapturing("a free"));
  SimMachine& machine = *machine_;
  const Allocation* const allocation = machine_->memory_.FindUnfreed(memory);
  if (allocation == nullptr || allocation->device != queue_->device) {
    return absl::InvalidArgumentError(
        "free of an address at which no allocation of the device begins");
  }
  return Enqueue("free", {},
                 [&machine, memory](const Operation& operation)
                     ABSL_NO_THREAD_SAFETY_ANALYSIS {
                       machine.checker_.Begin(operation);
                       machine.checker_.Free(memory);
                       return absl::OkStatus();
                     });
}

absl::Status SimStream::Record(SimEvent& event) {
  TESSERA_RETURN_IF_ERROR(CallFault::Check(CallFault::Call::kRecord));
  MutexLock lock(&machine_->mutex_);
  event.record_ = std::make_shared<EventRecord>();
  event.record_->captured = queue_->capture != nullptr;
  event.record_->capture = queue_->capture;
  StreamOp op;
  op.kind = StreamOp::Kind::kRecord;
  op.record = event.record_;
  return machine_->scheduler_.Enqueue(*queue_, std::move(op));
}

absl::Status SimStream::Wait(const SimEvent& event) {
  MutexLock lock(&machine_->mutex_);
  if (event.record_ == nullptr) {
    return absl::OkStatus();  // as the CUDA runtime has it
  }
  const std::shared_ptr<Capture> capture = event.record_->capture.lock();
  if (queue_->capture == nullptr && capture != nullptr && !capture->closed) {
    if (capture->PartOf(queue_.get()) == nullptr) {
      TESSERA_ASSIGN_OR_RETURN(const uint16_t id, machine_->scheduler_.NewStreamId());
      capture->parts.push_back(
          {.stream = queue_.get(), .virtual_id = id, .clock = {}, .ops = {}});
    }
    queue_->capture = capture;
  }
  if (queue_->capture != capture || (event.record_->captured && capture == nullptr)) {
    return absl::FailedPreconditionError(fmt::format(
        "stream {} waits for an event of another capture, or of none", queue_->id));
  }
  StreamOp op;
  op.kind = StreamOp::Kind::kWait;
  op.record = event.record_;
  return machine_->scheduler_.Enqueue(*queue_, std::move(op));
}

absl::Status SimStream::Synchronize() {
  MutexLock lock(&machine_->mutex_);
  TESSERA_RETURN_IF_ERROR(NotWhileCapturing("a synchronisation"));
  ++machine_->num_host_waits_;
  return machine_->Note(machine_->scheduler_.Drain(*queue_));
}

absl::StatusOr<bool> SimStream::Query() {
  MutexLock lock(&machine_->mutex_);
  TESSERA_RETURN_IF_ERROR(NotWhileCapturing("a query"));
  const absl::StatusOr<bool> done = machine_->scheduler_.RunTowards(*queue_);
  TESSERA_RETURN_IF_ERROR(machine_->Note(done.status()));
  machine_->num_host_waits_ += *done ? 1 : 0;
  return done;
}

absl::Status SimStream::BeginCapture() {
  MutexLock lock(&machine_->mutex_);
  TESSERA_RETURN_IF_ERROR(NotWhileCapturing("a capture"));
  auto capture = std::make_shared<Capture>();
  TESSERA_ASSIGN_OR_RETURN(const uint16_t id, machine_->scheduler_.NewStreamId());
  capture->parts.push_back(
      {.stream = queue_.get(), .virtual_id = id, .clock = {}, .ops = {}});
  queue_->capture = std::move(capture);
  return absl::OkStatus();
}

absl::StatusOr<SimGraph> SimStream::EndCapture() {
  MutexLock lock(&machine_->mutex_);
  const std::shared_ptr<Capture> capture = queue_->capture;
  if (capture == nullptr || capture->parts.front().stream != queue_.get()) {
    return absl::FailedPreconditionError(
        fmt::format("stream {} began no capture", queue_->id));
  }
  capture->closed = true;
  bool joined = true;
  for (Capture::Part& part : capture->parts) {
    const uint64_t last = part.clock.Of(part.virtual_id);
    joined = joined && capture->parts.front().clock.Covers({part.virtual_id, last});
    if (part.stream == nullptr) {
      joined = false;  // a stream that is gone
      continue;
    }
    part.stream->capture = nullptr;
    part.stream = nullptr;
  }
  if (!joined) {
    return absl::FailedPreconditionError(
        "a stream of the capture has work that its origin does not wait for");
  }
  return SimGraph(capture);
}

absl::Status SimStream::Launch(const SimGraph& graph) {
  MutexLock lock(&machine_->mutex_);
  TESSERA_RETURN_IF_ERROR(NotWhileCapturing("a launch of a graph"));
  StreamOp op;
  op.kind = StreamOp::Kind::kGraph;
  op.name = "graph";
  op.graph = graph.capture_;
  return machine_->scheduler_.Enqueue(*queue_, std::move(op));
}

}  // namespace tessera::kernels::cuda_sim
