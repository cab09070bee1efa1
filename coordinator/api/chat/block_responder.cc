#include "coordinator/api/chat/block_responder.h"

#include <algorithm>
#include <iterator>
#include <utility>

#include "coordinator/api/response_json.h"

namespace tessera::coordinator {

BlockResponder::BlockResponder(std::shared_ptr<ResponseWriter> writer, TurnReader turn,
                               std::unique_ptr<BlockDialect> dialect, bool stream,
                               bool logprobs)
    : writer_(std::move(writer)),
      turn_(std::move(turn)),
      dialect_(std::move(dialect)),
      stream_(stream),
      logprobs_(logprobs) {}

void BlockResponder::Begin() {
  if (stream_) {
    writer_->StartStream(SseHead());
    Send(dialect_->Begin());
  }
}

void BlockResponder::Token(size_t /*prompt*/, const TokenEvent& event) {
  TurnReader::Delta delta = turn_.Token(event);
  if (logprobs_ && !turn_.in_reasoning()) {
    pending_.push_back(event);
  }
  Absorb(std::move(delta));
}

void BlockResponder::ChoiceDone(size_t /*prompt*/, const ChoiceFinished& event) {
  Absorb(turn_.Rest(event));
  Absorb(turn_.Finish());
  finished_ = event;
  if (is_open_) {
    blocks_.back().cut = event.reason == FinishReason::kLength;
    Close();
  }
}

void BlockResponder::Done(const RequestUsage& usage) {
  const TurnEnd end = {finished_, usage, turn_.reasoning_tokens()};
  if (stream_) {
    Send(dialect_->End(blocks_, end));
    writer_->Finish(/*close=*/false);
  } else {
    writer_->Respond(dialect_->Whole(blocks_, end));
  }
}

void BlockResponder::Fail(const ApiError& error, bool begun) {
  if (begun && stream_) {
    Send(dialect_->Fail(blocks_, error));
    writer_->Finish(/*close=*/true);
  } else {
    writer_->Respond(dialect_->Refuse(error));
  }
}

void BlockResponder::Absorb(TurnReader::Delta delta) {
  AddText(TurnBlock::Kind::kReasoning, delta.reasoning);
  AddText(TurnBlock::Kind::kText, delta.content);
  for (model::ToolCall& call : delta.tool_calls) {
    pending_.clear();  // the markup of the call
    Open({.kind = TurnBlock::Kind::kCall, .text = "", .call = std::move(call)});
    const TurnBlock& block = blocks_.back();
    if (stream_) {
      Send(dialect_->Append(blocks_.size() - 1, block, block.call.arguments));
    }
    Close();
  }
}

void BlockResponder::AddText(TurnBlock::Kind kind, const std::string& piece) {
  if (piece.empty()) {
    return;
  }
  if (!is_open_ || blocks_.back().kind != kind) {
    Open({.kind = kind, .text = "", .call = {}});
  }
  blocks_.back().text += piece;
  if (kind == TurnBlock::Kind::kText) {
    std::move(pending_.begin(), pending_.end(),
              std::back_inserter(blocks_.back().tokens));
    pending_.clear();
  }
  if (stream_) {
    Send(dialect_->Append(blocks_.size() - 1, blocks_.back(), piece));
  }
}

void BlockResponder::Open(TurnBlock block) {
  if (is_open_) {
    Close();
  }
  blocks_.push_back(std::move(block));
  is_open_ = true;
  if (stream_) {
    Send(dialect_->Open(blocks_.size() - 1, blocks_.back()));
  }
}

void BlockResponder::Close() {
  is_open_ = false;
  if (stream_) {
    Send(dialect_->Close(blocks_.size() - 1, blocks_.back()));
  }
}

void BlockResponder::Send(std::string events) {
  if (!events.empty()) {
    writer_->Write(std::move(events));
  }
}

}  // namespace tessera::coordinator
