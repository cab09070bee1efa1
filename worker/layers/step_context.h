// StepContext: what one step gives to every layer: the tokens' positions and pages, the
// device, the scratch memory, the group's communicators and, for `trace`, a sink for
// intermediates. Layers keep no state between steps apart from weights and cache views.
#ifndef TESSERA_WORKER_LAYERS_STEP_CONTEXT_H_
#define TESSERA_WORKER_LAYERS_STEP_CONTEXT_H_

#include <cstddef>
#include <cstdint>
#include <limits>
#include <span>
#include <string_view>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"

#include "kernels/kernel_backend.h"
#include "kernels/tensor_view.h"
#include "worker/comm/expert_exchange.h"
#include "worker/comm/stream_communicator.h"
#include "worker/comm/stream_wait.h"
#include "worker/layers/routed_loads.h"
#include "worker/layers/scratch_arena.h"

namespace tessera::worker {

// Receives intermediates by the names of the golden files ("router.1.ids", "hidden.0"…):
// rows of this step's tokens, in token order. Only rank 0 of a trace has one. Must copy
// what it keeps.
class TraceSink {
 public:
  virtual ~TraceSink() = default;
  // `layer` is -1 for what belongs to no layer.
  virtual void Record(std::string_view what, int64_t layer, kernels::TensorView rows) = 0;
};

struct StepContext {
  kernels::KernelBackend* backend = nullptr;
  kernels::Stream* stream = nullptr;
  ScratchArena* scratch = nullptr;
  StreamCommunicator* tp = nullptr;  // this rank's TP group
  StreamWait* wait = nullptr;        // how the host waits for `stream`
  TraceSink* trace = nullptr;        // may be null

  int64_t num_tokens = 0;  // T, may be 0: collectives over all ranks still take place
  kernels::TensorView token_ids;    // [T] i32
  kernels::TensorView cache_slots;  // [T] i32: where each token's cache entries go
  kernels::PagedIndex paged;        // block tables, sequence and position of each token
  // Tokens that any query of the step sees, at most; in a step that is captured, and so
  // stands for many, no bound.
  int64_t most_visible = std::numeric_limits<int64_t>::max();

  // Of models that keep tail blocks; empty views otherwise.
  kernels::TensorView tail_slots;  // [T] i32: where each token's tail rows go
  // The tail block tables: -1 where a block is not held, that is, where no token of this
  // step can see.
  kernels::PagedIndex tail;
  // [T] i32: the window of the query at p is [begin, end): max(0, p - window + 1) .. p
  // + 1.
  kernels::TensorView window_begin;
  kernels::TensorView window_end;

  // Where compressed entries of `ratio` tokens each lie.
  struct Entries {
    int64_t ratio = 0;
    // [T] i32: the entry slot block * (block_size / ratio) + (p % block_size) / ratio of
    // the token at p that completes an entry ((p + 1) % ratio == 0), else -1.
    kernels::TensorView slots;
    // [T] i32: position of that entry's first token, p + 1 - ratio; 0 where none is
    // completed.
    kernels::TensorView positions;
    kernels::PagedIndex index;  // block tables, block_size / ratio entries per block
  };
  std::span<const Entries> entries;  // one per distinct ratio of the model, rising

  // The host's time and the bytes of collectives, for metrics; layers add to them. What
  // runs on the device's stream takes no time of the host.
  int64_t* collective_ns = nullptr;
  int64_t* collective_bytes = nullptr;
  // Counts the items of each layer, for metrics; may be null.
  RoutedLoads* routed_loads = nullptr;

  kernels::DType dtype() const { return backend->activation_dtype(); }
  void Trace(std::string_view what, int64_t layer, kernels::TensorView rows) const {
    if (trace != nullptr) {
      trace->Record(what, layer, rows);
    }
  }
};

// Adds the partial sums of the TP group (the fixed tree) into every rank's x; a no-op for
// tp = 1 and for a step without tokens.
absl::Status ReduceOverTp(const StepContext& context, kernels::TensorView x);

// Communicator::AllGather over the TP group, of memory of the backend.
absl::Status GatherOverTp(const StepContext& context, std::span<const std::byte> send,
                          std::span<const int64_t> counts, std::span<std::byte> recv);

// Adds to the context's time and bytes of collectives, where they are counted.
void BookCollective(const StepContext& context, absl::Duration time, int64_t bytes);

}  // namespace tessera::worker

#endif  // TESSERA_WORKER_LAYERS_STEP_CONTEXT_H_
