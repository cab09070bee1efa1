#include "coordinator/api/idempotency/recording_writer.h"

#include <memory>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

#include "tests/testing/memory_writer.h"

namespace tessera::coordinator {
namespace {

using Verdict = IdempotencyStore::Verdict;
using tests::MemoryWriter;

HttpResponse Text(int status, const std::string& body) {
  HttpResponse response;
  response.status = status;
  response.body = body;
  return response;
}

class Recording : public ::testing::Test {
 protected:
  Recording() {
    const auto first = Ask(client_);
    recorder_ = std::make_shared<RecordingWriter>(store_, &clock_, key_, first.serial,
                                                  Text(409, "stopped"), client_);
    Ask(waiting_);
  }

  IdempotencyStore::Admission Ask(const std::shared_ptr<MemoryWriter>& writer) {
    return store_->Admit(key_, DigestOf("", ""), writer, clock_.Now());
  }
  // A stream of `size` bytes under way, of the same tenant.
  std::shared_ptr<RecordingWriter> Stream(const std::string& key, size_t size) {
    const auto client = std::make_shared<MemoryWriter>();
    const auto first = store_->Admit({"t", key}, DigestOf("", ""), client, clock_.Now());
    auto writer =
        std::make_shared<RecordingWriter>(store_, &clock_, IdempotencyKey{"t", key},
                                          first.serial, Text(409, "stopped"), client);
    writer->StartStream({});
    writer->Write(std::string(size, 'x'));
    return writer;
  }

  IdempotencyStore::Admission Repeat() { return Ask(std::make_shared<MemoryWriter>()); }

  SimulatedClock clock_{absl::FromUnixSeconds(1000)};
  const IdempotencyKey key_{"t", "k"};
  const std::shared_ptr<IdempotencyStore> store_ =
      std::make_shared<IdempotencyStore>(IdempotencyOptions{.max_bytes = 1600});
  const std::shared_ptr<MemoryWriter> client_ = std::make_shared<MemoryWriter>();
  const std::shared_ptr<MemoryWriter> waiting_ = std::make_shared<MemoryWriter>();
  std::shared_ptr<RecordingWriter> recorder_;
};

TEST_F(Recording, AnAnswerGoesToItsClientToThoseWhoWaitAndIntoTheStore) {
  recorder_->Respond(Text(200, "yes"));
  EXPECT_EQ(client_->answer->body, "yes");
  EXPECT_EQ(FindHeader(client_->answer->headers, kReplayedHeader), "");
  EXPECT_EQ(waiting_->answer->body, "yes");
  EXPECT_EQ(FindHeader(waiting_->answer->headers, kReplayedHeader), "true");
  EXPECT_EQ(Repeat().answer->body, "yes");
}

TEST_F(Recording, AnErrorGoesToThoseWhoWaitAndFreesTheKey) {
  recorder_->Respond(Text(503, "no"));
  EXPECT_EQ(client_->answer->status, 503);
  EXPECT_EQ(waiting_->answer->status, 503);
  EXPECT_EQ(FindHeader(waiting_->answer->headers, kReplayedHeader), "");
  EXPECT_EQ(Repeat().verdict, Verdict::kFirst);
}

TEST_F(Recording, AStreamIsKeptAsOneAnswerOfItsType) {
  HttpResponse head;
  head.content_type = "text/event-stream";
  recorder_->StartStream(head);
  recorder_->Write("data: a\n\n");
  recorder_->Write("data: b\n\n");
  EXPECT_FALSE(waiting_->answer.has_value());
  recorder_->Finish(/*close=*/false);
  EXPECT_EQ(client_->chunks.size(), 2);
  EXPECT_EQ(client_->finished, false);
  EXPECT_EQ(waiting_->answer->content_type, "text/event-stream");
  EXPECT_EQ(waiting_->answer->body, "data: a\n\ndata: b\n\n");
  EXPECT_EQ(Repeat().answer->body, "data: a\n\ndata: b\n\n");
}

TEST_F(Recording, AStreamThatEndsInAnErrorFreesTheKey) {
  recorder_->StartStream({});
  recorder_->Write("data: a\n\n");
  recorder_->Finish(/*close=*/true);
  EXPECT_EQ(client_->finished, true);
  EXPECT_EQ(waiting_->answer->body, "stopped");
  EXPECT_EQ(Repeat().verdict, Verdict::kFirst);
}

TEST_F(Recording, AStreamThatIsTooLargeReachesItsClientAndIsNotKept) {
  recorder_->StartStream({});
  recorder_->Write(std::string(101, 'x'));
  recorder_->Finish(/*close=*/false);
  EXPECT_EQ(client_->chunks.size(), 1);
  EXPECT_EQ(waiting_->answer->body, "stopped");
  EXPECT_EQ(Repeat().verdict, Verdict::kFirst);
}

TEST_F(Recording, StreamsUnderWayHoldNoMoreThanTheStoreMay) {
  std::vector<std::shared_ptr<RecordingWriter>> others;
  for (int i = 0; i < 8; ++i) {
    others.push_back(Stream(std::to_string(i), 100));
  }
  recorder_->StartStream({});
  recorder_->Write("data: a\n\n");
  recorder_->Finish(/*close=*/false);
  EXPECT_EQ(client_->chunks.size(), 1);
  EXPECT_EQ(waiting_->answer->body, "stopped");
  EXPECT_EQ(Repeat().verdict, Verdict::kFirst);
}

TEST_F(Recording, AStreamThatIsTooLargeOrOverHoldsNothing) {
  std::vector<std::shared_ptr<RecordingWriter>> others;
  for (int i = 0; i < 8; ++i) {
    others.push_back(Stream(std::to_string(i), 100));
    if (i % 2 == 0) {
      others.back()->Write("x");
    } else {
      others.back()->Finish(/*close=*/true);
    }
  }
  recorder_->StartStream({});
  recorder_->Write("data: a\n\n");
  recorder_->Write(std::string(80, 'x'));
  recorder_->Finish(/*close=*/false);
  EXPECT_EQ(Repeat().verdict, Verdict::kAnswered);
}

TEST_F(Recording, AClientThatLeavesCancelsNoWholeAnswer) {
  bool cancelled = false;
  recorder_->OnDisconnect([&] { cancelled = true; });
  client_->Disconnect();
  EXPECT_FALSE(cancelled);
  recorder_->Respond(Text(200, "yes"));
  EXPECT_EQ(Repeat().answer->body, "yes");
}

TEST_F(Recording, AClientThatLeavesItsStreamStopsItAndFreesTheKey) {
  bool cancelled = false;
  recorder_->OnDisconnect([&] { cancelled = true; });
  recorder_->StartStream({});
  client_->Disconnect();
  EXPECT_TRUE(cancelled);
  EXPECT_EQ(waiting_->answer->status, 409);
  EXPECT_EQ(Repeat().verdict, Verdict::kFirst);
}

TEST_F(Recording, ARequestThatIsDroppedFreesTheKey) {
  recorder_.reset();
  EXPECT_EQ(waiting_->answer->body, "stopped");
  EXPECT_EQ(Repeat().verdict, Verdict::kFirst);
}

}  // namespace
}  // namespace tessera::coordinator
