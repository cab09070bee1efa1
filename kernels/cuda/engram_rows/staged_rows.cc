#include "kernels/cuda/engram_rows/staged_rows.h"

#include <cstring>

#include "common/check.h"
#include "common/status.h"
#include "common/status_macros.h"

namespace tessera::kernels::cuda {
namespace {

// A flag is down or up: a graph has the values of its capture, so they cannot count.
constexpr uint64_t kDown = 0;
constexpr uint64_t kUp = 1;

}  // namespace

absl::StatusOr<std::unique_ptr<StagedRows>> StagedRows::Create(
    std::shared_ptr<GpuMachine> machine, const Options& options, Clock* clock) {
  TESSERA_CHECK(options.bytes > 0);
  std::unique_ptr<StagedRows> made(new StagedRows(std::move(machine), options, clock));
  for (Generation& generation : made->generations_) {
    TESSERA_ASSIGN_OR_RETURN(void* const host, made->machine_->MallocHost(options.bytes));
    generation.host = static_cast<std::byte*>(host);
    generation.copied = std::make_unique<GpuEvent>(made->machine_);
    TESSERA_ASSIGN_OR_RETURN(generation.flag, GpuFlag::Create(made->machine_));
  }
  return made;
}

StagedRows::~StagedRows() {
  for (int i = 0; i < kGenerations; ++i) {
    Abandon(i);
    Generation& generation = At(i);
    if (generation.launched) {
      static_cast<void>(generation.copied->Synchronize());  // an error is the stream's
    }
    if (generation.host != nullptr) {
      static_cast<void>(machine_->Free(generation.host));
    }
  }
}

std::span<std::byte> StagedRows::host(int generation) const {
  return {generations_[static_cast<size_t>(generation)].host, bytes_};
}

absl::StatusOr<int> StagedRows::Begin(absl::Time deadline) {
  TESSERA_RETURN_IF_ERROR(Await(next_, deadline));
  const int begun = next_;
  At(begun).flag->Store(kDown);
  next_ = (next_ + 1) % kGenerations;
  return begun;
}

absl::Status StagedRows::Enqueue(GpuStream& stream, int generation, size_t bytes,
                                 void* to) const {
  TESSERA_CHECK(bytes <= bytes_);
  const Generation& of = generations_[static_cast<size_t>(generation)];
  TESSERA_RETURN_IF_ERROR(stream.WaitFlag(*of.flag, kUp));
  return bytes == 0 ? absl::OkStatus() : stream.MemcpyAsync(to, of.host, bytes);
}

absl::Status StagedRows::Launched(GpuStream& stream, int generation) {
  Generation& of = At(generation);
  TESSERA_CHECK(!of.launched);
  of.launched = true;
  return stream.Record(*of.copied);
}

void StagedRows::Arrived(int generation) { At(generation).flag->Store(kUp); }

void StagedRows::Abandon(int generation) {
  Generation& of = At(generation);
  if (!of.launched || of.copied->Query().value_or(false) || of.flag->Load() == kUp) {
    return;
  }
  Fill(generation);
  std::memset(of.host, 0xff, bytes_);
  of.flag->Store(kUp);
}

absl::Status StagedRows::Await(int generation, absl::Time deadline) {
  Generation& of = At(generation);
  while (of.launched) {
    TESSERA_ASSIGN_OR_RETURN(const bool over, of.copied->Query());
    if (over) {
      of.launched = false;
    } else if (clock_->Now() >= deadline) {
      Abandon(generation);
      return DeadlineExceededF("staged rows {} were not copied by the deadline",
                               generation);
    } else {
      clock_->Sleep(poll_interval_);
    }
  }
  return absl::OkStatus();
}

}  // namespace tessera::kernels::cuda
