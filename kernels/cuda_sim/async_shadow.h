// AsyncShadow: what each word of a block's shared memory remembers once the block uses
// barriers in shared memory, bulk copies or the tensor cores: the copy or the thread that
// wrote it last, who has read it since, and whether what ordinary writes left there is
// visible to copies and products (fence.proxy.async). Order comes from SyncClocks, of the
// moment of the access, so every kind of barrier counts.
//
// Of accesses before that, AccessChecker's shadow alone knows. One writer is kept:
// neighbours that use different bytes of a word may hide each other, never accuse.
#ifndef TESSERA_KERNELS_CUDA_SIM_ASYNC_SHADOW_H_
#define TESSERA_KERNELS_CUDA_SIM_ASYNC_SHADOW_H_

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "kernels/cuda_sim/sync_clock.h"

namespace tessera::kernels::cuda_sim {

enum class AsyncConflict {
  kNone,
  kCopyNotWaitedFor,  // of the copy that wrote the word
  kStillRead,         // by a thread or a product that the writer does not know the end of
  kUnordered,         // with an ordinary write that the accessor does not know of
  kMissingFence,  // ordinary writes that a product or copy meets without the proxy fence
};

// An ordinary access to a word.
struct WordAccess {
  Moment self;         // its thread's
  uint8_t bytes = 15;  // mask of the word's
  bool atomic = false;
};

class AsyncShadow {
 public:
  // Forgets the last block. Nothing is tracked until Activate, which the first use of a
  // barrier or product calls.
  void BeginBlock();
  void Activate(uint32_t num_threads);
  bool active() const { return active_; }

  // Whether a copy wrote word `index`, and no ordinary write since.
  bool IsCopied(size_t index) const;
  // An ordinary access by a thread that knows `knows`.
  AsyncConflict Read(size_t index, const WordAccess& access, const SyncClock& knows);
  AsyncConflict Write(size_t index, const WordAccess& access, const SyncClock& knows);
  // A bulk copy into the word, issued by who knows `knows`.
  AsyncConflict Copy(size_t index, const Moment& copy, const SyncClock& knows);
  // A product that reads the word for each of `readers`.
  AsyncConflict Product(size_t index, std::span<const Moment> readers,
                        const SyncClock& knows);
  // What the thread has written so far becomes visible to products.
  void Fence(uint32_t thread);

 private:
  struct Word {
    uint64_t serial = 0;
    Moment copy;
    WordAccess write;           // the last ordinary one; tick 0: none since the copy
    uint32_t write_number = 0;  // of its thread's writes
    std::vector<WordAccess> readers;
  };
  Word& At(size_t index);
  static void Remember(Word& word, const WordAccess& reader);
  static bool KnowsReaders(const Word& word, const WordAccess& access,
                           const SyncClock& knows);
  static bool KnowsWrite(const Word& word, const WordAccess& access,
                         const SyncClock& knows);
  // Whether the last ordinary write is visible to copies and products.
  bool IsFenced(const Word& word) const;

  bool active_ = false;
  uint64_t serial_ = 0;
  std::vector<Word> words_;
  std::vector<uint32_t> writes_;  // by thread
  std::vector<uint32_t> fenced_;  // how many of them were fenced
};

}  // namespace tessera::kernels::cuda_sim

#endif  // TESSERA_KERNELS_CUDA_SIM_ASYNC_SHADOW_H_
