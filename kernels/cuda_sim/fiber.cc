#include "kernels/cuda_sim/fiber.h"

#include <array>
#include <cstdint>
#include <cstring>

#include "fmt/format.h"
#include <sys/mman.h>
#include <unistd.h>

#include "common/check.h"
#include "common/status.h"

// Saves the callee-saved registers on the stack that runs, keeps its pointer in *save,
// and continues on the other one. The floating point control words are the same on both
// sides: nothing here changes them.
asm(R"(
.text
.globl tessera_fiber_switch
.type tessera_fiber_switch, @function
tessera_fiber_switch:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.size tessera_fiber_switch, .-tessera_fiber_switch
.globl tessera_fiber_start
.type tessera_fiber_start, @function
tessera_fiber_start:
  movq %r12, %rdi
  callq *%r13
  ud2
.size tessera_fiber_start, .-tessera_fiber_start
)");

extern "C" {
void tessera_fiber_switch(void** save, void* load);
void tessera_fiber_start();
__attribute__((weak)) void __sanitizer_start_switch_fiber(void** save, const void* bottom,
                                                          size_t size);
__attribute__((weak)) void __sanitizer_finish_switch_fiber(void* save,
                                                           const void** bottom_old,
                                                           size_t* size_old);
__attribute__((weak)) void __asan_unpoison_memory_region(const volatile void* begin,
                                                         size_t size);
__attribute__((weak)) void* __tsan_get_current_fiber();
__attribute__((weak)) void* __tsan_create_fiber(unsigned flags);
__attribute__((weak)) void __tsan_destroy_fiber(void* fiber);
__attribute__((weak)) void __tsan_switch_to_fiber(void* fiber, unsigned flags);
}

namespace tessera::kernels::cuda_sim {

absl::StatusOr<std::unique_ptr<Fiber>> Fiber::Create(size_t stack_bytes) {
  const auto page = static_cast<size_t>(::sysconf(_SC_PAGESIZE));
  const size_t bytes = (stack_bytes + page - 1) / page * page + page;
  void* const mapping =
      ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE,
             MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_STACK, -1, 0);
  if (mapping == MAP_FAILED || ::mprotect(mapping, page, PROT_NONE) != 0) {
    return absl::ResourceExhaustedError(
        fmt::format("cannot map a fiber's stack of {} bytes", bytes));
  }
  return std::unique_ptr<Fiber>(new Fiber(static_cast<std::byte*>(mapping), bytes, page));
}

Fiber::Fiber(std::byte* mapping, size_t mapping_bytes, size_t guard_bytes)
    : mapping_(mapping),
      mapping_bytes_(mapping_bytes),
      stack_(mapping + guard_bytes),
      stack_bytes_(mapping_bytes - guard_bytes) {}

Fiber::~Fiber() {
  if (tsan_fiber_ != nullptr) {
    __tsan_destroy_fiber(tsan_fiber_);
  }
  if (__asan_unpoison_memory_region != nullptr) {
    __asan_unpoison_memory_region(stack_, stack_bytes_);
  }
  ::munmap(mapping_, mapping_bytes_);
}

void Fiber::Start(Entry entry, void* argument) {
  entry_ = entry;
  argument_ = argument;
  if (!done_ && __asan_unpoison_memory_region != nullptr) {
    __asan_unpoison_memory_region(stack_, stack_bytes_);  // frames that never returned
  }
  if (!done_ && tsan_fiber_ != nullptr) {
    __tsan_destroy_fiber(tsan_fiber_);
    tsan_fiber_ = nullptr;
  }
  if (tsan_fiber_ == nullptr && __tsan_create_fiber != nullptr) {
    tsan_fiber_ = __tsan_create_fiber(0);
  }
  done_ = false;
  fake_stack_ = nullptr;
  // What tessera_fiber_switch pops: r15, r14, r13 (Main), r12 (this), rbx, rbp, and the
  // address to go to, at 8 above a multiple of 16: the stack is aligned after it.
  std::array<uintptr_t, 7> frame = {};
  frame[2] = reinterpret_cast<uintptr_t>(&Fiber::Main);
  frame[3] = reinterpret_cast<uintptr_t>(this);
  frame[6] = reinterpret_cast<uintptr_t>(&tessera_fiber_start);
  constexpr size_t kAboveFrame = 64;
  std::byte* const at = stack_ + stack_bytes_ - kAboveFrame - sizeof(frame);
  TESSERA_DCHECK((reinterpret_cast<uintptr_t>(at) + sizeof(frame)) % 16 == 0);
  std::memcpy(at, frame.data(), sizeof(frame));
  stack_pointer_ = at;
}

bool Fiber::Resume() {
  TESSERA_DCHECK(!done_);
  void* my_fake_stack = nullptr;
  if (__sanitizer_start_switch_fiber != nullptr) {
    __sanitizer_start_switch_fiber(&my_fake_stack, stack_, stack_bytes_);
  }
  if (tsan_fiber_ != nullptr) {
    tsan_caller_ = __tsan_get_current_fiber();
    __tsan_switch_to_fiber(tsan_fiber_, 0);
  }
  tessera_fiber_switch(&caller_pointer_, stack_pointer_);
  if (__sanitizer_finish_switch_fiber != nullptr) {
    __sanitizer_finish_switch_fiber(my_fake_stack, nullptr, nullptr);
  }
  return done_;
}

// Not instrumented, like Main: a frame that is entered and never left would stay on the
// thread sanitizer's own stack.
__attribute__((no_sanitize("thread"))) void Fiber::LeaveTo(bool for_good) {
  if (__sanitizer_start_switch_fiber != nullptr) {
    __sanitizer_start_switch_fiber(for_good ? nullptr : &fake_stack_, caller_stack_,
                                   caller_stack_bytes_);
  }
  if (tsan_fiber_ != nullptr) {
    __tsan_switch_to_fiber(tsan_caller_, 0);
  }
  tessera_fiber_switch(&stack_pointer_, caller_pointer_);
  if (__sanitizer_finish_switch_fiber != nullptr) {
    __sanitizer_finish_switch_fiber(fake_stack_, &caller_stack_, &caller_stack_bytes_);
  }
}

void Fiber::Suspend() { LeaveTo(false); }

__attribute__((no_sanitize("thread"))) void Fiber::Main(Fiber* self) {
  if (__sanitizer_finish_switch_fiber != nullptr) {
    __sanitizer_finish_switch_fiber(nullptr, &self->caller_stack_,
                                    &self->caller_stack_bytes_);
  }
  self->entry_(self->argument_);
  self->done_ = true;
  self->LeaveTo(true);
}

}  // namespace tessera::kernels::cuda_sim
