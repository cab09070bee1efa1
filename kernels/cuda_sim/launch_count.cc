#include "kernels/cuda_sim/launch_count.h"

namespace tessera::kernels::cuda_sim {
namespace {

thread_local LaunchCount* newest = nullptr;

}  // namespace

LaunchCount::LaunchCount() : outer_(newest) { newest = this; }

LaunchCount::~LaunchCount() { newest = outer_; }

void LaunchCount::Add() {
  if (newest != nullptr) {
    ++newest->launches_;
  }
}

}  // namespace tessera::kernels::cuda_sim
