// Graphs of a backend's streams, on the simulated GPU: what a capture takes, what it
// refuses, and what a launch works on. That GPUs have the same graphs:
// device_runtime_test.cc.
#include "kernels/runtime/stream_graph.h"

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "gtest/gtest.h"

#include "kernels/cuda/cuda_backend.h"
#include "kernels/tensor_view.h"

namespace tessera::kernels {
namespace {

using Values = std::vector<float>;

class StreamGraphs : public testing::TestWithParam<uint64_t> {
 protected:
  void SetUp() override {
    auto backend = CreateSimulatedCudaBackend({.seed = GetParam(), .check_order = true});
    ASSERT_TRUE(backend.ok()) << backend.status();
    backend_ = *std::move(backend);
    auto stream = backend_->CreateStream();
    ASSERT_TRUE(stream.ok());
    stream_ = *std::move(stream);
    factory_ = StreamGraphsOf(backend_.get());
    ASSERT_NE(factory_, nullptr);
    x_ = Make({1, 2, 3});
    y_ = Make({10, 20, 30});
  }

  TensorView Make(const Values& values) {
    auto memory = backend_->Allocate(values.size() * sizeof(float));
    EXPECT_TRUE(memory.ok());
    const TensorView view(memory->data(), DType::kF32, {1, std::ssize(values)});
    memory_.push_back(*std::move(memory));
    backend_->Upload(*stream_, values.data(), view);
    EXPECT_TRUE(stream_->Synchronize().ok());
    return view;
  }
  Values Read(const TensorView& view) {
    Values values(static_cast<size_t>(view.num_elements()));
    backend_->Download(*stream_, view, values.data());
    EXPECT_TRUE(stream_->Synchronize().ok());
    return values;
  }
  // y += x; x = y.
  std::unique_ptr<StreamGraph> CaptureSum() {
    auto graph = factory_->Capture(*stream_, [&] {
      backend_->Add(*stream_, x_, y_);
      backend_->Copy(*stream_, y_, x_);
      return absl::OkStatus();
    });
    EXPECT_TRUE(graph.ok()) << graph.status();
    return *std::move(graph);
  }

  std::unique_ptr<KernelBackend> backend_;
  std::vector<DeviceBuffer> memory_;
  std::unique_ptr<Stream> stream_;
  StreamGraphFactory* factory_ = nullptr;
  TensorView x_;
  TensorView y_;
};

TEST_P(StreamGraphs, RunAtEachLaunchAndNotAtTheirCapture) {
  const auto graph = CaptureSum();
  EXPECT_EQ(Read(y_), Values({10, 20, 30}));
  ASSERT_TRUE(graph->Launch(*stream_).ok());
  EXPECT_EQ(Read(x_), Values({11, 22, 33}));
  ASSERT_TRUE(graph->Launch(*stream_).ok());
  ASSERT_TRUE(graph->Launch(*stream_).ok());
  EXPECT_EQ(Read(x_), Values({44, 88, 132}));
  EXPECT_EQ(graph->num_nodes(), 2);
}

TEST_P(StreamGraphs, TakeTheirPlaceAmongTheOpsOfAStream) {
  const auto graph = CaptureSum();
  backend_->Scale(*stream_, x_, 2);
  ASSERT_TRUE(graph->Launch(*stream_).ok());
  backend_->Scale(*stream_, x_, 10);
  EXPECT_EQ(Read(x_), Values({120, 240, 360}));
  const Values fresh = {0, 0, 1};
  backend_->Upload(*stream_, fresh.data(), x_);
  ASSERT_TRUE(graph->Launch(*stream_).ok());
  EXPECT_EQ(Read(x_), Values({12, 24, 37}));
}

TEST_P(StreamGraphs, CanBeLaunchedOnAnotherStream) {
  const auto graph = CaptureSum();
  auto other = backend_->CreateStream();
  ASSERT_TRUE(other.ok());
  ASSERT_TRUE(graph->Launch(**other).ok());
  ASSERT_TRUE((*other)->Synchronize().ok());
  EXPECT_EQ(Read(x_), Values({11, 22, 33}));
}

TEST_P(StreamGraphs, OfACallThatFailsAreNone) {
  const auto graph = factory_->Capture(*stream_, [&] {
    backend_->Add(*stream_, x_, y_);
    return absl::UnavailableError("no rows");
  });
  EXPECT_EQ(graph.status(), absl::UnavailableError("no rows"));
  EXPECT_EQ(Read(y_), Values({10, 20, 30}));
  ASSERT_TRUE(CaptureSum()->Launch(*stream_).ok());
  EXPECT_EQ(Read(x_), Values({11, 22, 33})) << "the stream is as before";
}

// What needs the host, or the device to have come so far.
TEST_P(StreamGraphs, RefuseAWaitOfTheHostAndPageableMemory) {
  Values host(3);
  const auto refuses = [&](absl::FunctionRef<absl::Status()> enqueue) {
    const auto graph = factory_->Capture(*stream_, enqueue);
    EXPECT_EQ(graph.status().code(), absl::StatusCode::kFailedPrecondition);
    EXPECT_TRUE(stream_->Synchronize().ok()) << stream_->Synchronize();
  };
  refuses([&] {
    backend_->Add(*stream_, x_, y_);
    return stream_->Synchronize();
  });
  refuses([&] {
    backend_->Upload(*stream_, host.data(), x_);
    return absl::OkStatus();
  });
  refuses([&] {
    backend_->Download(*stream_, x_, host.data());
    return absl::OkStatus();
  });
  refuses([&] {
    const auto inner = factory_->Capture(*stream_, [] { return absl::OkStatus(); });
    return inner.status();
  });
  EXPECT_EQ(Read(x_), Values({1, 2, 3}));
}

TEST_P(StreamGraphs, OfMemoryThatIsGoneAreFound) {
  const auto graph = CaptureSum();
  ASSERT_TRUE(graph->Launch(*stream_).ok());
  ASSERT_TRUE(stream_->Synchronize().ok());
  memory_.pop_back();
  ASSERT_TRUE(graph->Launch(*stream_).ok());
  const absl::Status status = stream_->Synchronize();
  EXPECT_NE(status.ToString().find("stale graph argument"), std::string::npos) << status;
}

TEST_P(StreamGraphs, AreNotCapturedBehindAnError) {
  Values host(3);
  // A copy between two places of the host: an error that waits for Synchronize.
  backend_->Upload(*stream_, host.data(), TensorView(host.data(), DType::kF32, {1, 3}));
  const auto graph = factory_->Capture(*stream_, [] { return absl::OkStatus(); });
  EXPECT_EQ(graph.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(stream_->Synchronize(), graph.status());
}

INSTANTIATE_TEST_SUITE_P(Seeds, StreamGraphs, testing::Range<uint64_t>(1, 6));

TEST(StreamGraphFactories, AreThoseOfDevices) {
  for (const char* name : {"reference", "cpu"}) {
    const auto backend = CreateBackend({.name = name});
    ASSERT_TRUE(backend.ok());
    EXPECT_EQ(StreamGraphsOf(backend->get()), nullptr) << name;
  }
}

}  // namespace
}  // namespace tessera::kernels
