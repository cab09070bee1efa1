// AsyncShadow: what each word of a block's shared memory remembers of bulk copies and of
// the tensor cores: the copy that wrote it last, who has read it since, and whether what
// ordinary writes left there is visible to them (fence.proxy.async). Order comes from
// SyncClocks, of the moment of the access.
//
// Ordinary accesses to words that no copy wrote are AccessChecker's alone, by barriers.
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
  kMissingFence,      // ordinary writes that a product reads without the proxy fence
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
  // An ordinary access; `self` is its thread's moment, `knows` its clock.
  AsyncConflict Read(size_t index, const Moment& self, const SyncClock& knows);
  AsyncConflict Write(size_t index, const Moment& self, const SyncClock& knows);
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
    uint32_t writer = 0;
    uint32_t write_number = 0;  // of the writer's writes; 0: not written
    std::vector<Moment> readers;
  };
  Word& At(size_t index);
  static void Remember(Word& word, const Moment& reader);
  static bool AllCovered(const Word& word, const Moment& self, const SyncClock& knows);

  bool active_ = false;
  uint64_t serial_ = 0;
  std::vector<Word> words_;
  std::vector<uint32_t> writes_;  // by thread
  std::vector<uint32_t> fenced_;  // how many of them were fenced
};

}  // namespace tessera::kernels::cuda_sim

#endif  // TESSERA_KERNELS_CUDA_SIM_ASYNC_SHADOW_H_
