#include "kernels/cuda_sim/sim_flag.h"

#include <deque>
#include <string>
#include <utility>

#include "fmt/format.h"

#include "common/status.h"
#include "common/status_macros.h"
#include "kernels/cuda_sim/call_fault.h"
#include "kernels/cuda_sim/sim_stream.h"

namespace tessera::kernels::cuda_sim {

// Guarded by the machine's lock.
struct SimFlag::State {
  static constexpr size_t kMaxStores = 64;  // older ones are forgotten
  struct Stored {
    uint64_t value = 0;
    Clock clock;  // of the host
  };

  uint64_t* word = nullptr;
  std::deque<Stored> stores;
  bool freed = false;

  void Set(uint64_t value, const Clock& clock) {
    *word = value;
    stores.push_back({value, clock});
    if (stores.size() > kMaxStores) {
      stores.pop_front();
    }
  }
  // The store that ended a wait for `value` at the earliest: the first of those since
  // which none was too small. A wait may have seen that one, and no later one.
  Clock ClockOf(uint64_t value) const {
    Clock clock;
    for (auto at = stores.rbegin(); at != stores.rend() && Reaches(at->value, value);
         ++at) {
      clock = at->clock;
    }
    return clock;
  }
  static bool Reaches(uint64_t held, uint64_t value) {
    return static_cast<int64_t>(held - value) >= 0;
  }
  // False, and a finding, once it is gone. The checker is at the operation that asks.
  bool Check(AccessChecker& checker) const {
    if (freed) {
      checker.Report(FindingKind::kUseAfterFree, {}, {}, "a flag that is freed");
    }
    return !freed;
  }
};

class SimFlag::WaitOp final : public OpenOp {
 public:
  WaitOp(std::shared_ptr<const State> state, uint64_t value)
      : state_(std::move(state)), value_(value) {}

  bool CanEnd() const override {
    return state_->freed || State::Reaches(*state_->word, value_);
  }
  absl::Status End(Clock& clock) override {
    clock.Join(state_->ClockOf(value_));
    return absl::OkStatus();
  }
  std::string Stuck() override {
    return fmt::format(
        "a stream waits for a flag of {}, which holds {}: nobody stores it", value_,
        *state_->word);
  }

 private:
  const std::shared_ptr<const State> state_;
  const uint64_t value_;
};

absl::Status SimFlag::CheckSupport(const SimMachine& /*machine*/) {
  return CallFault::Check(CallFault::Call::kFlagSupport);
}

absl::StatusOr<std::unique_ptr<SimFlag>> SimFlag::Create(
    std::shared_ptr<SimMachine> machine) {
  TESSERA_RETURN_IF_ERROR(CheckSupport(*machine));
  auto state = std::make_shared<State>();
  TESSERA_ASSIGN_OR_RETURN(void* const word, machine->MallocHost(sizeof(uint64_t)));
  state->word = static_cast<uint64_t*>(word);
  *state->word = 0;
  return std::unique_ptr<SimFlag>(new SimFlag(std::move(machine), std::move(state)));
}

SimFlag::SimFlag(std::shared_ptr<SimMachine> machine, std::shared_ptr<State> state)
    : machine_(std::move(machine)), state_(std::move(state)) {}

SimFlag::~SimFlag() {
  // Fails, and the machine with it, where a stream still waits for the flag.
  static_cast<void>(machine_->Free(state_->word));
  MutexLock lock(&machine_->mutex_);
  state_->freed = true;
}

void SimFlag::Store(uint64_t value) {
  MutexLock lock(&machine_->mutex_);
  state_->Set(value, machine_->scheduler_.host_clock());
}

uint64_t SimFlag::Load() const {
  MutexLock lock(&machine_->mutex_);
  return *state_->word;
}

absl::Status SimStream::WaitFlag(const SimFlag& flag, uint64_t value) {
  MutexLock lock(&machine_->mutex_);
  SimMachine& machine = *machine_;
  StreamOp op;
  op.kind = StreamOp::Kind::kOpen;
  op.name = "wait for a flag";
  op.open = [&machine, state = flag.state_, value](const Operation& operation)
                ABSL_NO_THREAD_SAFETY_ANALYSIS {
                  machine.checker_.Begin(operation);
                  state->Check(machine.checker_);
                  return std::make_shared<SimFlag::WaitOp>(state, value);
                };
  return machine_->scheduler_.Enqueue(*queue_, std::move(op));
}

}  // namespace tessera::kernels::cuda_sim
