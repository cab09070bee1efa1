#include "kernels/cuda_sim/call_fault.h"

#include <utility>

namespace tessera::kernels::cuda_sim {
namespace {

thread_local CallFault* newest = nullptr;

}  // namespace

CallFault::CallFault(Call call, absl::Status status, int num_good)
    : call_(call), status_(std::move(status)), num_good_(num_good), outer_(newest) {
  newest = this;
}

CallFault::~CallFault() { newest = outer_; }

absl::Status CallFault::Check(Call call) {
  for (CallFault* fault = newest; fault != nullptr; fault = fault->outer_) {
    if (fault->call_ != call) {
      continue;
    }
    if (fault->num_good_ == 0) {
      return fault->status_;
    }
    --fault->num_good_;
  }
  return absl::OkStatus();
}

}  // namespace tessera::kernels::cuda_sim
