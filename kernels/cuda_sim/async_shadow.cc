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

void AsyncShadow::Remember(Word& word, const WordAccess& reader) {
  const auto known = std::find_if(
      word.readers.begin(), word.readers.end(), [&](const WordAccess& other) {
        return other.self.agent == reader.self.agent && other.bytes == reader.bytes;
      });
  if (known == word.readers.end()) {
    word.readers.push_back(reader);
  } else {
    known->self.tick = std::max(known->self.tick, reader.self.tick);
  }
}

bool AsyncShadow::KnowsReaders(const Word& word, const WordAccess& access,
                               const SyncClock& knows) {
  return std::all_of(
      word.readers.begin(), word.readers.end(), [&](const WordAccess& reader) {
        return reader.self.agent == access.self.agent ||
               (reader.bytes & access.bytes) == 0 || knows.Covers(reader.self);
      });
}

bool AsyncShadow::KnowsWrite(const Word& word, const WordAccess& access,
                             const SyncClock& knows) {
  return word.write.self.agent == access.self.agent ||
         (word.write.bytes & access.bytes) == 0 || (word.write.atomic && access.atomic) ||
         knows.Covers(word.write.self);
}

bool AsyncShadow::IsFenced(const Word& word) const {
  return word.write.self.tick == 0 || fenced_[word.write.self.agent] >= word.write_number;
}

AsyncConflict AsyncShadow::Read(size_t index, const WordAccess& access,
                                const SyncClock& knows) {
  Word& word = At(index);
  Remember(word, access);
  if (!knows.Covers(word.copy)) {
    return AsyncConflict::kCopyNotWaitedFor;
  }
  return KnowsWrite(word, access, knows) ? AsyncConflict::kNone
                                         : AsyncConflict::kUnordered;
}

AsyncConflict AsyncShadow::Write(size_t index, const WordAccess& access,
                                 const SyncClock& knows) {
  Word& word = At(index);
  AsyncConflict conflict = AsyncConflict::kNone;
  if (!knows.Covers(word.copy)) {
    conflict = AsyncConflict::kCopyNotWaitedFor;
  } else if (!KnowsWrite(word, access, knows)) {
    conflict = AsyncConflict::kUnordered;
  } else if (!KnowsReaders(word, access, knows)) {
    conflict = AsyncConflict::kStillRead;
  }
  word.copy = {};
  word.readers.clear();
  word.write = access;
  word.write_number = ++writes_[access.self.agent];
  return conflict;
}

AsyncConflict AsyncShadow::Copy(size_t index, const Moment& copy,
                                const SyncClock& knows) {
  Word& word = At(index);
  AsyncConflict conflict = AsyncConflict::kNone;
  if (!knows.Covers(word.copy)) {
    conflict = AsyncConflict::kCopyNotWaitedFor;
  } else if (!knows.Covers(word.write.self)) {
    conflict = AsyncConflict::kUnordered;
  } else if (!KnowsReaders(word, {copy}, knows)) {
    conflict = AsyncConflict::kStillRead;
  } else if (!IsFenced(word)) {
    conflict = AsyncConflict::kMissingFence;
  }
  word.copy = copy;
  word.readers.clear();
  word.write = {};
  return conflict;
}

AsyncConflict AsyncShadow::Product(size_t index, std::span<const Moment> readers,
                                   const SyncClock& knows) {
  Word& word = At(index);
  for (const Moment& reader : readers) {
    Remember(word, {reader});
  }
  if (!knows.Covers(word.copy)) {
    return AsyncConflict::kCopyNotWaitedFor;
  }
  if (!knows.Covers(word.write.self)) {
    return AsyncConflict::kUnordered;
  }
  return IsFenced(word) ? AsyncConflict::kNone : AsyncConflict::kMissingFence;
}

void AsyncShadow::Fence(uint32_t thread) {
  if (active_) {
    fenced_[thread] = writes_[thread];
  }
}

}  // namespace tessera::kernels::cuda_sim
