// ExpertExchange: dispatch of token rows to the ranks that hold their experts, and
// combine at home. Works over any Communicator (the EP group of all R ranks, or its nodes
// and rails). One per rank; one exchange is in progress at a time. All
// memory is allocated at Create for `max_tokens`.
//
// Messages per layer and rank: one AllToAllV of rows (each row once per destination rank,
// whatever the number of its experts there: DispatchRowBytes + the slot list, and one
// weight per slot where weights travel), one AllToAllV back (one row of d values per
// token and slot). With nodes and rails it is the same on each of the two groups: each
// row once per destination node over the rail, then once per destination rank inside the
// node. A row that stays on its rank is not copied over the wire, yet rounded to the wire
// type alike. Combine adds in router-slot order in float32, so neither placement nor
// group size changes a bit.
#ifndef TESSERA_WORKER_COMM_EXPERT_EXCHANGE_H_
#define TESSERA_WORKER_COMM_EXPERT_EXCHANGE_H_

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"

#include "kernels/kernel_backend.h"
#include "kernels/tensor_view.h"
#include "worker/comm/communicator.h"
#include "worker/comm/exchange_rounds.h"

namespace tessera::worker {

// What goes over the wire of a row at Dispatch. Outputs come back as activations.
enum class DispatchRows {
  kActivations,  // the row
  // Its codes and scales (kernels::Fp8RowFormat), of float32 rows: for experts that would
  // round them so, which then compute the same bits.
  kFp8,
};

// What this rank's experts have to compute. Views into the exchange's memory, valid until
// Combine. Where the device makes the lists, num_items is a bound: the items are as many
// as the last offset says.
struct ExpertBatch {
  // [num_rows, d]: received rows, sorted by source rank; over nodes and rails by the rank
  // in the node, then by source node. Of several ranks with DispatchRows::kFp8: u8
  // [num_rows, bytes of Fp8RowFormat(d)].
  kernels::TensorView rows;
  kernels::TensorView row_of_item;   // [num_items] i32
  kernels::TensorView item_offsets;  // [num_local_experts + 1] i32
  kernels::TensorView item_weights;  // [num_items]; rank 0 unless weights travel
  kernels::TensorView out;           // [num_items, d]: the experts write here
};

// What an exchange takes, and where its outputs go.
struct ExchangeRows {
  kernels::TensorView x;           // [T, d]; T may be 0
  kernels::TensorView expert_ids;  // [T, k] i32: logical ids
  kernels::TensorView weights;     // [T, k]
  kernels::TensorView out;         // [T, d]: other memory
};

struct ExpertExchangeOptions {
  int64_t max_tokens = 0;         // of one rank's Dispatch; every rank has the same bound
  int64_t hidden_size = 0;        // d
  int64_t experts_per_token = 0;  // k
  // True: the expert applies the routing weight, which goes with the row, and Combine
  // adds what comes back as it is. False: the weight stays at home and Combine applies
  // it.
  bool weights_travel = false;
  DispatchRows rows = DispatchRows::kActivations;
  // Of several ranks, whose rows go as many as there are; every rank has the same.
  RoundPolicy rounds = kOneRound;
  // owner[e] = rank of logical expert e; local order is rising e.
  std::vector<int> expert_owner;
};

// Of a row on the wire of Dispatch; `element_bytes`: of an activation.
int64_t DispatchRowBytes(const ExpertExchangeOptions& options, int64_t element_bytes);

// The groups that an exchange goes over: ep alone, or the two by which it reaches all of
// ep in two steps. Rank r of ep is rank r % node->size() of its node, the ranks of a node
// being neighbours, and rank r / node->size() of its rail, the ranks of the same place in
// every node. Set both or none; each has at least two ranks.
struct ExchangeGroups {
  Communicator* ep = nullptr;
  Communicator* node = nullptr;
  Communicator* rail = nullptr;
};

// Step thread only. An exchange is Dispatch, the experts of its batch, and Combine; or,
// in rounds, Send, num_rounds() times Receive and the experts of its batch, and Finish.
// Unless is_capturable, the host waits for the stream without a deadline: nothing on it
// may wait for another rank.
class ExpertExchange {
 public:
  // The groups and `backend` must outlive it. kInvalidArgument for an owner out of range,
  // groups that are not as above, or kFp8 of other activations than float32.
  static absl::StatusOr<std::unique_ptr<ExpertExchange>> Create(
      const ExpertExchangeOptions& options, kernels::KernelBackend* backend,
      const ExchangeGroups& groups);
  virtual ~ExpertExchange() = default;

  // Collective. x [T, d], expert_ids [T, k] i32 (logical ids), weights [T, k]; T may be
  // 0. The memory of `weights` must stay as it is until Combine. kInternal: shapes, or,
  // unless is_capturable, an expert that does not exist; num_rounds() is above 1.
  virtual absl::StatusOr<ExpertBatch> Dispatch(kernels::Stream& stream,
                                               kernels::TensorView x,
                                               kernels::TensorView expert_ids,
                                               kernels::TensorView weights) = 0;

  // Collective. The batch's `out` is filled; out[t] = sum over slots of y[t, j], times
  // weights[t, j] unless the experts have applied them.
  virtual absl::Status Combine(kernels::Stream& stream, kernels::TensorView out) = 0;

  // The same in rounds, each of a part of the rows: while those of one are under way, the
  // experts have another's, and before the first Receive what the caller enqueues after
  // Send. Each is a collective, with the errors of the two above; the memory of the rows
  // must stay as it is until Finish, which, as Combine, ends the last batch. A batch is
  // valid until the next Receive. The number of rounds is known after the first Receive,
  // and 1 at least before. Here: of exchanges that have no rounds to offer.
  virtual int64_t num_rounds() const { return 1; }
  virtual absl::Status Send(kernels::Stream& stream, const ExchangeRows& rows);
  virtual absl::StatusOr<ExpertBatch> Receive(kernels::Stream& stream);
  virtual absl::Status Finish(kernels::Stream& stream);

  // After the stream's Synchronize at the end of a step, also of one that was replayed
  // from a graph: kInternal, once, if an op of Dispatch or Combine has met an expert that
  // does not exist, so that the step is wrong.
  virtual absl::Status Check() = 0;

  // Whether Dispatch and Combine only enqueue, on memory whose place no step changes, so
  // that a captured step has them inside. Then the host waits for nobody in them, and an
  // expert that does not exist is left to Check; -1 is none, and costs nothing.
  virtual bool is_capturable() const = 0;

  // Of a row that Dispatch sends to a rank.
  virtual int64_t row_bytes() const = 0;

  // The host's in the groups' collectives, since these were made; none where it only
  // enqueues.
  virtual absl::Duration host_time() const { return absl::ZeroDuration(); }

  // Experts of this rank, rising.
  virtual std::span<const int> local_experts() const = 0;

 private:
  ExchangeRows sent_;  // of Send above
};

}  // namespace tessera::worker

#endif  // TESSERA_WORKER_COMM_EXPERT_EXCHANGE_H_
