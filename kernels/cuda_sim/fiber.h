// Fiber: a function on a stack of its own that gives control back in the middle and goes
// on later. One host thread at a time. x86-64 only: the switch is ten instructions of
// assembly, since the portable swapcontext makes a system call each time and a kernel
// with shuffles switches millions of times.
//
// Under the address and thread sanitizers each switch is announced to the runtime. Their
// hooks are weak symbols: absent from a plain build, which then makes no call.
#ifndef TESSERA_KERNELS_CUDA_SIM_FIBER_H_
#define TESSERA_KERNELS_CUDA_SIM_FIBER_H_

#include <cstddef>
#include <memory>

#include "absl/status/statusor.h"

namespace tessera::kernels::cuda_sim {

class Fiber {
 public:
  using Entry = void (*)(void* argument);

  // kResourceExhausted if the system has no such memory. The stack has a guard page below
  // it; pages cost memory once they are touched.
  static absl::StatusOr<std::unique_ptr<Fiber>> Create(size_t stack_bytes);
  ~Fiber();
  Fiber(const Fiber&) = delete;
  Fiber& operator=(const Fiber&) = delete;

  // Makes the next Resume call entry(argument). What ran before and did not end is
  // dropped: destructors of its locals do not run.
  void Start(Entry entry, void* argument);
  // Runs until Suspend, or until entry returns. True if it returned. Not from a fiber.
  bool Resume();
  // From inside this fiber alone: returns to Resume.
  void Suspend();

 private:
  Fiber(std::byte* mapping, size_t mapping_bytes, size_t guard_bytes);
  static void Main(Fiber* self);
  void LeaveTo(bool for_good);

  std::byte* const mapping_;
  const size_t mapping_bytes_;
  std::byte* const stack_;  // lowest byte above the guard
  const size_t stack_bytes_;
  Entry entry_ = nullptr;
  void* argument_ = nullptr;
  bool done_ = true;
  void* stack_pointer_ = nullptr;   // while suspended
  void* caller_pointer_ = nullptr;  // while running
  // What the sanitizers keep for either side.
  void* fake_stack_ = nullptr;
  const void* caller_stack_ = nullptr;
  size_t caller_stack_bytes_ = 0;
  void* tsan_fiber_ = nullptr;
  void* tsan_caller_ = nullptr;
};

}  // namespace tessera::kernels::cuda_sim

#endif  // TESSERA_KERNELS_CUDA_SIM_FIBER_H_
