#include "kernels/cuda_sim/async_shadow.h"

#include <algorithm>

namespace tessera::kernels::cuda_sim {

void AsyncShadow::BeginBlock() {
  active_ = false;
  ++serial_;
}

void AsyncShadow::Activate(uint32_t num_threads) {
  active_ = true;
  writes_.assign(num_threads, 0);
  fenced_.assign(num_threads, 0);
}

AsyncShadow::Word& AsyncShadow::At(size_t index) {
  if (index >= words_.size()) {
    words_.resize(index + 1);
  }
  Word& word = words_[index];
  // A word of another block, which is told by its serial number, is a new word.
  if (word.serial != serial_) {
    word = Word{};
    word.serial = serial_;
  }
  return word;
}

bool AsyncShadow::IsCopied(size_t index) const {
  return index < words_.size() && words_[index].serial == serial_ &&
         words_[index].copy.tick > 0;
}

void AsyncShadow::Remember(Word& word, const Moment& reader) {
  const auto known =
      std::find_if(word.readers.begin(), word.readers.end(),
                   [&](const Moment& other) { return other.agent == reader.agent; });
  if (known == word.readers.end()) {
    word.readers.push_back(reader);
  } else {
    known->tick = std::max(known->tick, reader.tick);
  }
}

bool AsyncShadow::AllCovered(const Word& word, const Moment& self,
                             const SyncClock& knows) {
  return std::all_of(word.readers.begin(), word.readers.end(), [&](const Moment& reader) {
    return reader.agent == self.agent || knows.Covers(reader);
  });
}

AsyncConflict AsyncShadow::Read(size_t index, const Moment& self,
                                const SyncClock& knows) {
  Word& word = At(index);
  Remember(word, self);
  return knows.Covers(word.copy) ? AsyncConflict::kNone
                                 : AsyncConflict::kCopyNotWaitedFor;
}

AsyncConflict AsyncShadow::Write(size_t index, const Moment& self,
                                 const SyncClock& knows) {
  Word& word = At(index);
  AsyncConflict conflict = AsyncConflict::kNone;
  if (!knows.Covers(word.copy)) {
    conflict = AsyncConflict::kCopyNotWaitedFor;
  } else if (!AllCovered(word, self, knows)) {
    conflict = AsyncConflict::kStillRead;
  }
  word.copy = {};
  word.readers.clear();
  word.writer = self.agent;
  word.write_number = ++writes_[self.agent];
  return conflict;
}

AsyncConflict AsyncShadow::Copy(size_t index, const Moment& copy,
                                const SyncClock& knows) {
  Word& word = At(index);
  AsyncConflict conflict = AsyncConflict::kNone;
  if (!knows.Covers(word.copy)) {
    conflict = AsyncConflict::kCopyNotWaitedFor;
  } else if (!AllCovered(word, copy, knows)) {
    conflict = AsyncConflict::kStillRead;
  }
  word.copy = copy;
  word.readers.clear();
  word.write_number = 0;
  return conflict;
}

AsyncConflict AsyncShadow::Product(size_t index, std::span<const Moment> readers,
                                   const SyncClock& knows) {
  Word& word = At(index);
  for (const Moment& reader : readers) {
    Remember(word, reader);
  }
  if (!knows.Covers(word.copy)) {
    return AsyncConflict::kCopyNotWaitedFor;
  }
  return word.write_number > 0 && fenced_[word.writer] < word.write_number
             ? AsyncConflict::kMissingFence
             : AsyncConflict::kNone;
}

void AsyncShadow::Fence(uint32_t thread) {
  if (active_) {
    fenced_[thread] = writes_[thread];
  }
}

}  // namespace tessera::kernels::cuda_sim
