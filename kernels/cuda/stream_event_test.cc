// Events between two streams of a backend, on the simulated GPU, whose streams run in any
// order that events allow: an order that is missing is found. That GPUs have the same
// events: device_runtime_test.cc.
#include "kernels/runtime/stream_event.h"

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "gtest/gtest.h"

#include "common/status_macros.h"
#include "kernels/cuda/cuda_backend.h"
#include "kernels/runtime/stream_graph.h"
#include "kernels/tensor_view.h"

namespace tessera::kernels {
namespace {

using Values = std::vector<float>;

class StreamEvents : public testing::TestWithParam<uint64_t> {
 protected:
  void SetUp() override {
    auto backend = CreateSimulatedCudaBackend({.seed = GetParam(), .check_order = true});
    ASSERT_TRUE(backend.ok()) << backend.status();
    backend_ = *std::move(backend);
    stream_ = *backend_->CreateStream();
    other_ = *backend_->CreateStream();
    StreamEventFactory* const events = StreamEventsOf(backend_.get());
    ASSERT_NE(events, nullptr);
    fork_ = events->CreateEvent();
    join_ = events->CreateEvent();
    memory_ = *backend_->Allocate(3 * sizeof(float));
    x_ = {memory_.data(), DType::kF32, {1, 3}};
    const Values values = {1, 2, 3};
    backend_->Upload(*stream_, values.data(), x_);
    ASSERT_TRUE(stream_->Synchronize().ok());
  }

  // x = 10 (3 x), each factor on a stream of its own.
  absl::Status Enqueue() {
    backend_->Scale(*stream_, x_, 3);
    TESSERA_RETURN_IF_ERROR(fork_->Record(*stream_));
    TESSERA_RETURN_IF_ERROR(fork_->Wait(*other_));
    backend_->Scale(*other_, x_, 10);
    TESSERA_RETURN_IF_ERROR(join_->Record(*other_));
    return join_->Wait(*stream_);
  }
  Values Read() {
    Values values(3);
    backend_->Download(*stream_, x_, values.data());
    EXPECT_TRUE(stream_->Synchronize().ok()) << stream_->Synchronize();
    return values;
  }

  std::unique_ptr<KernelBackend> backend_;
  DeviceBuffer memory_;
  std::unique_ptr<Stream> stream_;
  std::unique_ptr<Stream> other_;
  std::unique_ptr<StreamEvent> fork_;
  std::unique_ptr<StreamEvent> join_;
  TensorView x_;
};

TEST_P(StreamEvents, PutWhatFollowsBehindWhatCameBefore) {
  ASSERT_TRUE(Enqueue().ok());
  ASSERT_TRUE(Enqueue().ok()) << "they are recorded again";
  backend_->Scale(*stream_, x_, 2);
  EXPECT_EQ(Read(), Values({1800, 3600, 5400}));
}

TEST_P(StreamEvents, ThatAreMissingAreFound) {
  backend_->Scale(*stream_, x_, 3);
  ASSERT_TRUE(join_->Wait(*other_).ok()) << "one that nobody recorded";
  backend_->Scale(*other_, x_, 10);
  absl::Status status = stream_->Synchronize();
  status.Update(other_->Synchronize());
  EXPECT_NE(status.ToString().find("missing stream dependency"), std::string::npos)
      << status;
}

TEST_P(StreamEvents, TakeTheOtherStreamIntoACaptureAndOutOfIt) {
  StreamGraphFactory* const graphs = StreamGraphsOf(backend_.get());
  const auto graph = graphs->Capture(*stream_, [&] { return Enqueue(); });
  ASSERT_TRUE(graph.ok()) << graph.status();
  EXPECT_EQ((*graph)->num_nodes(), 2);
  ASSERT_TRUE((*graph)->Launch(*stream_).ok());
  ASSERT_TRUE((*graph)->Launch(*stream_).ok());
  EXPECT_EQ(Read(), Values({900, 1800, 2700}));
  ASSERT_TRUE(Enqueue().ok()) << "both streams are as before";
  EXPECT_EQ(Read(), Values({27000, 54000, 81000}));
}

TEST_P(StreamEvents, ACaptureThatDoesNotWaitForTheOtherStreamIsNone) {
  StreamGraphFactory* const graphs = StreamGraphsOf(backend_.get());
  const auto graph = graphs->Capture(*stream_, [&]() -> absl::Status {
    TESSERA_RETURN_IF_ERROR(fork_->Record(*stream_));
    TESSERA_RETURN_IF_ERROR(fork_->Wait(*other_));
    backend_->Scale(*other_, x_, 10);
    return absl::OkStatus();
  });
  EXPECT_EQ(graph.status().code(), absl::StatusCode::kFailedPrecondition);
  ASSERT_TRUE(Enqueue().ok()) << "both streams are as before";
  EXPECT_EQ(Read(), Values({30, 60, 90}));
}

INSTANTIATE_TEST_SUITE_P(Seeds, StreamEvents, testing::Range<uint64_t>(1, 6));

TEST(StreamEventFactories, AreThoseOfDevices) {
  for (const char* name : {"reference", "cpu"}) {
    const auto backend = CreateBackend({.name = name});
    ASSERT_TRUE(backend.ok());
    EXPECT_EQ(StreamEventsOf(backend->get()), nullptr) << name;
  }
}

}  // namespace
}  // namespace tessera::kernels
