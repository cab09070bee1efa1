// Which reader a device's backend has, and what it makes of a machine that cannot do what
// it needs: rows come another way, a line says why, and the bytes are the same.
#include "kernels/cuda/engram_rows/device_engram_reader.h"

#include <array>
#include <cstring>
#include <memory>
#include <numeric>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

#include "common/check.h"
#include "common/clock.h"
#include "kernels/cuda/device_backend.h"
#include "kernels/cuda_sim/call_fault.h"
#include "kernels/cuda_sim/sim_machine.h"
#include "kernels/engram_reader.h"

namespace tessera::kernels::cuda {
namespace {

using cuda_sim::CallFault;
using testing::HasSubstr;

constexpr size_t kRowBytes = 8;
constexpr size_t kRows = 6;

// How often `what` is in `text`.
int Count(const std::string& text, const std::string& what) {
  int count = 0;
  for (size_t at = text.find(what); at != std::string::npos;
       at = text.find(what, at + 1)) {
    ++count;
  }
  return count;
}

class DeviceReader : public testing::Test {
 protected:
  DeviceReader() : machine_(*GpuMachine::Create()) {
    for (size_t i = 0; i < memory_.size(); ++i) {
      memory_[i] = static_cast<std::byte>(i);
    }
  }

  // A reader of `num_tables` tables, each of one column and one shard, by a backend that
  // reads rows itself where it can, or not.
  void Make(bool reads_engram_rows, size_t num_tables = 1) {
    backend_ = *CreateDeviceBackend(machine_, {.numerics_id = "cuda_sim/f32",
                                               .isa = "simulated GPU",
                                               .reads_engram_rows = reads_engram_rows});
    stream_ = *backend_->CreateStream();
    reader_ = CreateEngramReader(backend_.get(), &clock_);
    for (size_t i = 0; i < num_tables; ++i) {
      const absl::Status added =
          reader_->AddTable({.row_bytes = kRowBytes, .max_rows = kRows, .view = View(i)});
      ASSERT_TRUE(added.ok()) << added;
    }
  }
  std::span<const std::byte> Memory(size_t table) const {
    return std::span(memory_).subspan(table * kRows * kRowBytes, kRows * kRowBytes);
  }
  EngramTableView View(size_t table) const {
    return {.shards = {Memory(table)},
            .columns = {{0, kRows, kRows}},
            .first_local = {0},
            .row_bytes = kRowBytes};
  }

  // Brings three rows of a table to the device; whether the device read them itself.
  bool BringsRows(size_t table = 0) {
    const std::vector<uint32_t> ids = {4, 0, 5};
    std::vector<std::byte> expected;
    for (const uint32_t id : ids) {
      const auto row = Memory(table).subspan(id * kRowBytes, kRowBytes);
      expected.insert(expected.end(), row.begin(), row.end());
    }
    const auto landing = reader_->Begin(table, ids, clock_.Now() + absl::Milliseconds(5));
    TESSERA_CHECK(landing.ok());
    if (!landing->empty()) {
      EXPECT_EQ(landing->size(), expected.size());
      std::memcpy(landing->data(), expected.data(), expected.size());
    }
    const auto rows = reader_->Enqueue(*stream_, table);
    TESSERA_CHECK(rows.ok());
    reader_->Arrived(table);
    std::vector<std::byte> seen(expected.size());
    backend_->Download(
        *stream_, TensorView(const_cast<void*>(*rows), DType::kU8, {std::ssize(seen)}),
        seen.data());
    EXPECT_TRUE(stream_->Synchronize().ok());
    EXPECT_EQ(seen, expected);
    EXPECT_TRUE(reader_->Check().ok());
    return landing->empty();
  }

  SimulatedClock clock_;
  std::array<std::byte, 2 * kRows* kRowBytes> memory_ = {};
  std::shared_ptr<GpuMachine> machine_;
  std::unique_ptr<KernelBackend> backend_;
  std::unique_ptr<Stream> stream_;
  std::unique_ptr<EngramReader> reader_;
};

TEST_F(DeviceReader, IsThereWhereItIsAskedForAlone) {
  Make(/*reads_engram_rows=*/true);
  EXPECT_TRUE(BringsRows());
  reader_ = nullptr;
  Make(/*reads_engram_rows=*/false);
  EXPECT_FALSE(BringsRows());
}

TEST_F(DeviceReader, IsAnUploadWhereStreamsCannotWaitForFlags) {
  const CallFault no_flags(CallFault::Call::kFlagSupport,
                           absl::UnimplementedError("no waits of 64 bits"));
  EXPECT_EQ(
      CreateDeviceEngramReader(machine_, HostRegistrations::Create(machine_), {}, &clock_)
          .status()
          .code(),
      absl::StatusCode::kUnimplemented);
  testing::internal::CaptureStderr();
  Make(/*reads_engram_rows=*/true, 2);
  const std::string log = testing::internal::GetCapturedStderr();
  EXPECT_EQ(Count(log, "gathered by the host and uploaded"), 1) << log;
  EXPECT_THAT(log, HasSubstr("no waits of 64 bits"));
  EXPECT_FALSE(BringsRows(0));
  EXPECT_FALSE(BringsRows(1));
}

TEST_F(DeviceReader, OfTablesThatSomebodyElseRegisteredLeavesThemToTheHost) {
  ASSERT_TRUE(machine_->HostRegisterReadOnly(memory_.data() + 8, kRows * kRowBytes).ok())
      << "a part of either";
  testing::internal::CaptureStderr();
  Make(/*reads_engram_rows=*/true, 2);
  const std::string log = testing::internal::GetCapturedStderr();
  EXPECT_EQ(Count(log, "was not registered"), 1) << "of both tables: " << log;
  EXPECT_FALSE(BringsRows(0));
  EXPECT_FALSE(BringsRows(1));
  reader_ = nullptr;
  EXPECT_TRUE(machine_->HostUnregister(memory_.data() + 8).ok());
}

TEST_F(DeviceReader, OfATableThatCannotBePinnedLeavesItToTheHost) {
  testing::internal::CaptureStderr();
  {
    const CallFault full(CallFault::Call::kHostRegister,
                         absl::ResourceExhaustedError("pages cannot be pinned"),
                         /*num_good=*/1);
    Make(/*reads_engram_rows=*/true, 2);
  }
  EXPECT_THAT(testing::internal::GetCapturedStderr(),
              HasSubstr("pages cannot be pinned"));
  EXPECT_TRUE(BringsRows(0));
  EXPECT_FALSE(BringsRows(1));
}

TEST_F(DeviceReader, OfADamagedTableDoesNotStart) {
  Make(/*reads_engram_rows=*/true, 0);
  EngramTableView view = View(0);
  view.columns[0].num_rows = kRows + 1;
  EXPECT_EQ(
      reader_->AddTable({.row_bytes = kRowBytes, .max_rows = kRows, .view = view}).code(),
      absl::StatusCode::kInvalidArgument);
}

// A step that fails after its stream was given the wait for its rows.
TEST_F(DeviceReader, HoldsNoStreamOfAStepThatFailed) {
  ASSERT_TRUE(machine_->HostRegisterReadOnly(memory_.data(), memory_.size()).ok());
  for (const auto call : {CallFault::Call::kMemcpy, CallFault::Call::kRecord}) {
    Make(/*reads_engram_rows=*/true);
    EXPECT_FALSE(BringsRows());
    EXPECT_FALSE(BringsRows());
    const std::vector<uint32_t> ids = {1, 2};
    ASSERT_TRUE(reader_->Begin(0, ids, clock_.Now()).ok());
    {
      const CallFault fault(call, absl::InternalError("planted"));
      EXPECT_EQ(reader_->Enqueue(*stream_, 0).status().message(), "planted");
    }
    reader_->Abandon(0);
    EXPECT_TRUE(stream_->Synchronize().ok()) << machine_->status();
    EXPECT_FALSE(BringsRows());
    EXPECT_FALSE(BringsRows());
    reader_ = nullptr;
  }
  EXPECT_TRUE(machine_->HostUnregister(memory_.data()).ok());
}

}  // namespace
}  // namespace tessera::kernels::cuda
