// StepPlan and StepResult: all that the coordinator and a worker say to each other about
// a step, as plain structs. step_convert.{h,cc} maps them to the wire. A plan is a delta
// on sequence slots: the worker keeps for each slot its token tail, position, block
// tables and sampler state. A new epoch starts from nothing: every live sequence is
// admitted again.
//
// Order inside a plan: disk copies, offloads, transfers between ranks, restores,
// releases, admissions, block appends, then work.
#ifndef TESSERA_PROTO_STEP_PLAN_H_
#define TESSERA_PROTO_STEP_PLAN_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

namespace tessera::proto {

// Drafts that one step may verify of one sequence, at most.
inline constexpr size_t kMaxDrafts = 16;

// Disk copies of one rank that are not done, at most; and so many does a plan name.
inline constexpr int64_t kMaxDiskCopies = 1 << 14;

// How the next token of a sequence is chosen. Defaults: no change to the distribution.
struct SamplingParams {
  float temperature = 1.0f;  // 0: greedy, ties to the lower id
  float top_p = 1.0f;
  int32_t top_k = 0;  // 0: all
  float min_p = 0.0f;
  float repetition_penalty = 1.0f;
  float presence_penalty = 0.0f;
  float frequency_penalty = 0.0f;
  uint64_t seed = 0;
  uint32_t choice_index = 0;  // a draw is keyed by (seed, choice_index, position)
  int32_t num_logprobs = -1;  // -1: none; 0: the sampled token's; n: the n best as well
  // Likewise of the prompt's tokens from the second on, of positions that are computed.
  int32_t num_prompt_logprobs = -1;
  int32_t min_tokens = 0;  // stop ids are masked until so many tokens were generated
  std::vector<int32_t> stop_token_ids = {};  // only read while min_tokens is not reached
  std::vector<std::pair<int32_t, float>> logit_bias = {};  // at most 1024
  // Generated tokens never end in one of these sequences. They give way where nothing
  // else is left to choose.
  std::vector<std::vector<int32_t>> bad_words = {};
  std::vector<int32_t> allowed_token_ids = {};  // rising; empty: all

  bool operator==(const SamplingParams&) const = default;
};

struct SlotAdmission {
  uint32_t slot = 0;
  // Tokens before the first position to compute: empty, or (after a prefix hit, a
  // preemption or a new epoch) the whole history: n-grams and penalties are rebuilt from
  // true token ids.
  std::vector<int32_t> history = {};
  uint32_t prompt_length =
      0;  // tokens of the prompt: the rest of the history was generated
  std::vector<uint32_t> blocks = {};  // block table so far
  // Of models that keep tail blocks (rows that only the next `tail_tokens` positions
  // see), else 0 and empty: the tail block table from index `tail_begin` on. Nothing that
  // is computed from here on sees what lies before it.
  uint32_t tail_begin = 0;
  std::vector<uint32_t> tail_blocks = {};
  SamplingParams sampling = {};

  bool operator==(const SlotAdmission&) const = default;
};

// The next entries of a slot's tables; each list continues its own. A prompt has all its
// blocks from the admission on, its tail blocks come with the chunks that write them.
// Entries are never taken back: the coordinator gives a tail block to another sequence
// once no token to come can see it, and no step reads it through the old table again.
struct BlockAppend {
  uint32_t slot = 0;
  std::vector<uint32_t> blocks = {};
  std::vector<uint32_t> tail_blocks = {};

  bool operator==(const BlockAppend&) const = default;
};

// What one slot computes in this step: `tokens`, or, if `from_sample`, the one token that
// was sampled for it last (tokens is empty then); after it, as many of its drafts as
// `num_drafts` allows. A drafter may have fewer, and drafts of the step before may have
// been refused, so that the positions of a plan sent ahead are upper bounds: blocks are
// there for all of them, and the worker knows the true ones.
struct SlotWork {
  uint32_t slot = 0;
  bool from_sample = false;
  bool sample = false;  // sample after the last of the tokens, and after each draft
  std::vector<int32_t> tokens = {};
  uint32_t num_drafts = 0;  // 0 unless the slot's last work sampled and this one does
  // The token after `tokens` where the plan knows it (a chunk inside a prompt), for the
  // draft layer and for scores of the prompt; -1: the sampled one.
  int32_t next_token = -1;
  // The token sampled may be only one that a mask allows, which comes as a late input
  // while the step runs. Such work samples and has no drafts.
  bool masked = false;

  bool operator==(const SlotWork&) const = default;
};

// One block of a rank's pool, every layer of it, between the device and host memory; or,
// if `tail`, one tail block likewise. Host blocks of both kinds are numbered from 0 each.
// A host block has content from its first offload of an epoch on.
struct BlockCopy {
  uint32_t device = 0;
  uint32_t host = 0;
  bool tail = false;

  bool operator==(const BlockCopy&) const = default;
};

// One block, or one tail block, that another rank of the group computed. `peer` is the DP
// rank at the other end; TP ranks deal with those of their own index. What one rank sends
// to another comes there in the same order.
struct BlockTransfer {
  uint32_t block = 0;  // of the sender's device, or of the receiver's host memory
  uint32_t peer = 0;
  bool tail = false;
  uint64_t id = 0;  // the same in both plans

  bool operator==(const BlockTransfer&) const = default;
};

// One host block, or host tail block, that a thread of the worker's writes to a slot of
// its disk, or reads from there (`fetch`), while steps go on. What is written is what the
// host block holds when the plan begins. A block that is read has its content from the
// step on whose result counts the copy as done; until then no plan names it. Slots of
// both kinds are numbered from 0 each.
struct DiskCopy {
  uint32_t host = 0;
  uint32_t slot = 0;
  uint64_t content = 0;  // what it is: a fetch of a slot that holds another one fails
  bool tail = false;
  bool fetch = false;

  bool operator==(const DiskCopy&) const = default;
};

struct StepPlan {
  uint64_t epoch = 0;
  uint64_t step = 0;  // counts up by one inside an epoch
  uint64_t placement_version = 0;
  // Before all else, in their order; they are done in that order as well.
  std::vector<DiskCopy> disk_copies = {};
  // In their order, all offloads first: a block that is restored here may hold, until
  // then, content that is offloaded here.
  std::vector<BlockCopy> offloads = {};  // device to host
  std::vector<BlockCopy> restores = {};  // host to device
  // Between the two, and only where `transfers`, which is the same in all plans of a
  // step: every rank of the group takes part, with blocks or without. Peers rise.
  bool transfers = false;
  std::vector<BlockTransfer> sends = {};
  std::vector<BlockTransfer> receives = {};
  std::vector<uint32_t> releases = {};  // slots
  std::vector<SlotAdmission> admissions = {};
  std::vector<BlockAppend> appends = {};
  std::vector<SlotWork>
      work;  // may be empty: the rank still takes part in the collectives
  // Not 0: a decode step. All work of all plans of the step, of which it is the same, is
  // IsDecodeWork (decode_rows.h), and no plan has more of it. So every rank knows what
  // the others run, and with how many rows.
  uint32_t decode_rows = 0;
  // A TP group's first rank counts the items that the group's tokens route to each expert
  // of each MoE layer, drafts that are verified included, draft layers not.
  bool leaves_expert_counts = false;   // a probe: what this step routes isn't counted
  bool reports_expert_counts = false;  // the result says the counts, which begin anew

  bool operator==(const StepPlan&) const = default;
};

// Which tokens the sampler of one slot may choose from: bit t % 32 of words[t / 32] is
// set for each of them, V bits in all. Empty: every token, where nobody waits for the
// answer.
struct TokenMask {
  uint32_t slot = 0;
  std::vector<uint32_t> words = {};

  bool operator==(const TokenMask&) const = default;
};

// What a step needs and only the token of the step before decides: the masks of all
// masked work of one plan.
struct LateInput {
  uint64_t epoch = 0;
  uint64_t step = 0;
  std::vector<TokenMask> masks = {};  // in the order of the plan's work

  bool operator==(const LateInput&) const = default;
};

struct TokenLogprob {
  int32_t token = 0;
  float logprob = 0;

  bool operator==(const TokenLogprob&) const = default;
};

// One sampled token.
struct SampledToken {
  uint32_t slot = 0;
  int32_t token = 0;
  uint32_t position = 0;  // of the token in its sequence
  float logprob = 0;      // log-softmax of the raw logits; only if asked for
  std::vector<TokenLogprob> top = {};

  bool operator==(const SampledToken&) const = default;
};

// Counters of one step on one rank.
struct StepCounters {
  uint64_t step_ns = 0;
  uint64_t collective_ns = 0;
  uint64_t collective_bytes = 0;
  uint64_t engram_wait_ns = 0;
  uint64_t engram_rows = 0;
  uint64_t engram_late_waits = 0;
  uint64_t engram_cache_hits = 0;  // distinct rows that a cache of rows had, or had not
  uint64_t engram_cache_misses = 0;
  uint64_t engram_disk_bytes = 0;  // read
  uint32_t num_tokens = 0;         // positions computed
  float expert_imbalance = 0;  // max / mean items per rank and layer, 0 without MoE work
  uint32_t num_drafts = 0;     // sequences of which drafts were verified
  uint32_t num_draft_tokens = 0;                          // drafts verified
  std::array<uint32_t, kMaxDrafts> accepted_drafts = {};  // sequences whose draft i stood
  uint64_t transfer_bytes = 0;                            // of blocks sent to other ranks
  uint64_t disk_written_bytes = 0;                        // of disk copies that were done
  uint64_t disk_read_bytes = 0;
  // Of the graph that the step was a launch of, padding included; 0: it ran eagerly.
  uint32_t graph_rows = 0;

  bool operator==(const StepCounters&) const = default;
};

// TP rank 0 of each DP rank fills `sampled`; the other ranks return the counters and what
// they say of disk copies alone.
// A slot that samples has 1 to num_drafts + 1 tokens there, one after the other, rising
// in position: its accepted drafts and the token after them.
struct StepResult {
  uint64_t epoch = 0;
  uint64_t step = 0;
  std::vector<SampledToken> sampled = {};
  // Tokens of prompts and their log-probabilities, for slots that ask for them: of each
  // the positions after those that the step computed, rising; the prompt's end aside.
  std::vector<SampledToken> prompt = {};
  StepCounters counters = {};
  // Disk copies of this epoch that are done: in the order of the plans, so that the first
  // so many are. Of those that the result before did not count, by their number, which
  // begins at 0 in each epoch, those that failed; rising. A slot or host block has no
  // content by a copy that failed.
  uint64_t disk_done = 0;
  std::vector<uint64_t> disk_failed = {};
  // If the plan asks for it, of TP rank 0: the items since the last report, [MoE layers,
  // experts].
  std::vector<uint32_t> expert_counts = {};

  bool operator==(const StepResult&) const = default;
};

}  // namespace tessera::proto

#endif  // TESSERA_PROTO_STEP_PLAN_H_
