// PendingTable<T>: the requests in flight of one source, at most `capacity` of them,
// under tickets that are never reused within 2^48 requests. It makes Issue free of
// allocation: slots and their values (buffers, routing scratch) are kept and used again.
#ifndef TESSERA_ENGRAM_STORE_CLIENT_PENDING_TABLE_H_
#define TESSERA_ENGRAM_STORE_CLIENT_PENDING_TABLE_H_

#include <cstddef>
#include <cstdint>
#include <vector>

namespace tessera::engram_store {

// Ticket of a request that found no free slot; its Wait gives kResourceExhausted.
inline constexpr uint64_t kRefusedTicket = 0;

// Step thread only.
template <typename T>
class PendingTable {
 public:
  explicit PendingTable(size_t capacity) : slots_(capacity) {
    for (size_t i = 0; i < capacity; ++i) {
      free_.push_back(capacity - 1 - i);
    }
  }

  // A ticket, and in `value` the slot's value as its last user left it; kRefusedTicket
  // when full.
  uint64_t Acquire(T** value) {
    if (free_.empty()) {
      return kRefusedTicket;
    }
    const size_t index = free_.back();
    free_.pop_back();
    slots_[index].ticket = (++issued_ << 16) | index;
    *value = &slots_[index].value;
    return slots_[index].ticket;
  }

  // The value of a ticket that is in flight, else nullptr.
  T* Find(uint64_t ticket) {
    const size_t index = ticket & 0xFFFF;
    const bool live = ticket != kRefusedTicket && index < slots_.size() &&
                      slots_[index].ticket == ticket;
    return live ? &slots_[index].value : nullptr;
  }

  // Spends a ticket that Find knows.
  void Release(uint64_t ticket) {
    const size_t index = ticket & 0xFFFF;
    slots_[index].ticket = kRefusedTicket;
    free_.push_back(index);
  }

  // Calls `visit` with the value of every ticket that is in flight.
  template <typename Visit>
  void ForEachPending(const Visit& visit) {
    for (Slot& slot : slots_) {
      if (slot.ticket != kRefusedTicket) {
        visit(slot.value);
      }
    }
  }

  // Largest capacity that tickets can name.
  static constexpr size_t kMaxCapacity = 0xFFFF;

 private:
  struct Slot {
    uint64_t ticket = kRefusedTicket;
    T value;
  };
  std::vector<Slot> slots_;
  std::vector<size_t> free_;
  uint64_t issued_ = 0;
};

}  // namespace tessera::engram_store

#endif  // TESSERA_ENGRAM_STORE_CLIENT_PENDING_TABLE_H_
