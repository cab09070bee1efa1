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
    if (generation.stream != nullptr && IsCopied(generation).status().ok()) {
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
  At(begun).has_begun = true;
  At(begun).flag->Store(kDown);
  next_ = (next_ + 1) % kGenerations;
  return begun;
}

absl::Status StagedRows::Enqueue(GpuStream& stream, int generation, size_t bytes,
                                 void* to) {
  TESSERA_CHECK(bytes <= bytes_);
  Generation& of = At(generation);
  if (!of.is_recorded) {  // otherwise a capture beside the turn that is under way
    of.stream = &stream;
  }
  TESSERA_RETURN_IF_ERROR(stream.WaitFlag(*of.flag, kUp));
  return bytes == 0 ? absl::OkStatus() : stream.MemcpyAsync(to, of.host, bytes);
}

absl::Status StagedRows::Launched(GpuStream& stream, int generation) {
  Generation& of = At(generation);
  TESSERA_CHECK(!of.is_recorded);
  of.stream = &stream;
  TESSERA_RETURN_IF_ERROR(stream.Record(*of.copied));
  of.is_recorded = true;
  return absl::OkStatus();
}

void StagedRows::Arrived(int generation) { At(generation).flag->Store(kUp); }

void StagedRows::Abandon(int generation) {
  Generation& of = At(generation);
  // Also without a launch that went well: a stream may have the wait without it.
  if (of.host == nullptr || of.flag == nullptr || of.flag->Load() == kUp) {
    return;
  }
  Fill(generation);
  std::memset(of.host, 0xff, bytes_);
  of.flag->Store(kUp);
}

bool StagedRows::HasEnded(const Generation& of) const {
  return !of.has_begun || of.flag->Load() == kUp;
}

// Whether no stream is before the wait or the copy. The flag stays as it is until then: a
// stream that has not seen it up would wait for the next turn's rows.
absl::StatusOr<bool> StagedRows::IsCopied(Generation& of) {
  if (of.stream == nullptr) {
    return true;
  }
  if (!of.is_recorded) {  // what was to come after the wait has failed
    TESSERA_RETURN_IF_ERROR(of.stream->Record(*of.copied));
    of.is_recorded = true;
  }
  TESSERA_ASSIGN_OR_RETURN(const bool is_over, of.copied->Query());
  if (is_over) {
    of.stream = nullptr;
    of.is_recorded = false;
  }
  return is_over;
}

absl::Status StagedRows::Await(int generation, absl::Time deadline) {
  Generation& of = At(generation);
  for (;;) {
    TESSERA_ASSIGN_OR_RETURN(const bool is_copied, IsCopied(of));
    const bool has_ended = HasEnded(of);
    if (is_copied && has_ended) {
      of.has_begun = false;
      return absl::OkStatus();
    }
    if (clock_->Now() >= deadline) {
      return DeadlineExceededF("staged rows {} {} by the deadline", generation,
                               has_ended ? "were not copied" : "did not come");
    }
    clock_->Sleep(poll_interval_);
  }
}

}  // namespace tessera::kernels::cuda
