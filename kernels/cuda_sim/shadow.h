// What the simulator remembers of each word of memory: who wrote and read it last, in
// which operation and between which barriers, and which of its bytes were ever written.
// From it follow races inside a launch, missing dependencies between streams, and reads
// of what nobody wrote.
//
// Order between operations is kept by vector clocks, one number per stream: operation n
// of stream s happened before what has a clock with clock[s] >= n.
#ifndef TESSERA_KERNELS_CUDA_SIM_SHADOW_H_
#define TESSERA_KERNELS_CUDA_SIM_SHADOW_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

namespace tessera::kernels::cuda_sim {

// An operation of a stream: a launch, a copy. Number 0 is none.
struct OpId {
  uint16_t stream = 0;
  uint64_t number = 0;

  friend bool operator==(const OpId&, const OpId&) = default;
};

class Clock {
 public:
  uint64_t Of(uint16_t stream) const {
    return stream < numbers_.size() ? numbers_[stream] : 0;
  }
  bool Covers(const OpId& op) const { return Of(op.stream) >= op.number; }
  void Set(uint16_t stream, uint64_t number);
  // The later of the two, stream by stream.
  void Join(const Clock& other);

 private:
  std::vector<uint64_t> numbers_;
};

enum class AccessKind : uint8_t { kRead, kWrite, kAtomic };

// One access as the shadow keeps it.
struct Access {
  OpId op;
  uint32_t block = 0;       // linear
  uint32_t epoch = 0;       // block barriers that its thread had passed
  uint32_t warp_epoch = 0;  // warp barriers
  uint16_t thread = 0;      // linear in its block
  uint8_t bytes = 0;        // mask of the bytes of its word
  AccessKind kind = AccessKind::kRead;
  bool clocked = false;  // its block keeps clocks (async_shadow.h), which order it
};

// The last accesses of a word of 4 bytes. One writer and one reader are kept: neighbours
// that use different bytes of a word may hide each other, never accuse each other.
struct ShadowWord {
  Access write;
  Access read;
  bool many_readers = false;  // other threads of the block of `read` too, in its epoch
  bool many_blocks = false;   // other blocks of the launch of `read` too
  uint8_t written = 0;        // mask of bytes that have a value
  uint64_t serial = 0;        // of the block whose shared memory this is
};

enum class Conflict { kNone, kRace, kStream, kUninitialized };

// Checks `access` against what the word remembers and remembers it. `clock` is that of
// the access's operation; `other` gets the access that it conflicts with.
Conflict CheckWord(const Access& access, const Clock& clock, ShadowWord& word,
                   Access* other);

// Words of an allocation, made page by page at their first use.
class ShadowPages {
 public:
  static constexpr size_t kWordsPerPage = 1024;

  explicit ShadowPages(size_t bytes)
      : pages_((bytes / 4 + kWordsPerPage) / kWordsPerPage) {}

  ShadowWord& Word(size_t index) {
    auto& page = pages_[index / kWordsPerPage];
    if (page == nullptr) {
      page = std::make_unique<Page>();
    }
    return (*page)[index % kWordsPerPage];
  }

 private:
  using Page = std::array<ShadowWord, kWordsPerPage>;
  std::vector<std::unique_ptr<Page>> pages_;
};

}  // namespace tessera::kernels::cuda_sim

#endif  // TESSERA_KERNELS_CUDA_SIM_SHADOW_H_
