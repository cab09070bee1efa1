// CallFault: calls of a simulated machine that fail, for tests of what their caller does
// then.
#ifndef TESSERA_KERNELS_CUDA_SIM_CALL_FAULT_H_
#define TESSERA_KERNELS_CUDA_SIM_CALL_FAULT_H_

#include "absl/status/status.h"

namespace tessera::kernels::cuda_sim {

// While it lives, calls of one kind that its thread makes, on any machine or stream, fail
// with its status and do nothing else, once `num_good` of them have gone through. Those
// of one thread end in reverse order.
class CallFault {
 public:
  enum class Call {
    kMemcpy,        // SimStream::MemcpyAsync, Memcpy2DAsync
    kRecord,        // SimStream::Record
    kFlagSupport,   // SimFlag::CheckSupport
    kHostRegister,  // SimMachine::HostRegister, HostRegisterReadOnly
  };

  CallFault(Call call, absl::Status status, int num_good = 0);
  ~CallFault();
  CallFault(const CallFault&) = delete;
  CallFault& operator=(const CallFault&) = delete;

  // By the calls themselves: the status to fail with, or OK.
  static absl::Status Check(Call call);

 private:
  const Call call_;
  const absl::Status status_;
  int num_good_;
  CallFault* const outer_;
};

}  // namespace tessera::kernels::cuda_sim

#endif  // TESSERA_KERNELS_CUDA_SIM_CALL_FAULT_H_
