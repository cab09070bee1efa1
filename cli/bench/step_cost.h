// What one step of a model must at least read and multiply: the figures that measured
// times are divided by.
//
// It stands under `tessera bench decode` and `prefill` and is arithmetic over the tensor
// inventory: it reads no weights and no clock. Counted are the bytes as the checkpoint
// holds them, so that a step which streams a wider copy looks as slow as it is; where
// numerics round wider weights to 8 bits, those. Left out
// are rows that are looked up (embedding, Engram, experts by token id) and activations.
#ifndef TESSERA_CLI_BENCH_STEP_COST_H_
#define TESSERA_CLI_BENCH_STEP_COST_H_

#include <cstdint>

#include "model/config/model_config.h"
#include "model/tensors/tensor_inventory.h"
#include "worker/runner/kv_pool.h"

namespace tessera::cli {

// The weights of the main model, without draft layers.
struct WeightCost {
  int64_t always_bytes = 0;  // what every step reads, head included
  int64_t expert_bytes = 0;  // of one routed expert, with its scales
  int64_t moe_layers = 0;
  // Multiply-adds of one token outside the routed experts and the head, of one routed
  // expert, and of the head, which only runs where a token is sampled.
  int64_t token_multiply_adds = 0;
  int64_t expert_multiply_adds = 0;
  int64_t head_multiply_adds = 0;
};

// Of steps whose queries see `most_visible` tokens at most: an indexer that selects all
// of so few makes no queries. `rounds_dense`: numerics w8a8-g32.
WeightCost WeightCostOf(const model::ModelConfig& config,
                        model::EngramRowFormat engram_rows, int64_t most_visible,
                        bool rounds_dense = false);

// Multiply-adds of the weights in a prefill of `tokens` tokens of which the last is
// sampled. Those of attention come on top.
int64_t PrefillMultiplyAdds(const WeightCost& cost, const model::ModelConfig& config,
                            int64_t tokens);

// Multiply-adds of queries with keys and of their weights with values in a prefill of
// `tokens` tokens, over all layers: of the rows that each query attends to, in the form
// that needs fewest (of MLA with keys and values for each head, not in the latent space).
// An indexer's scores are left out, so that what an engine does is more.
int64_t AttentionMultiplyAdds(const model::ModelConfig& config, int64_t tokens);

// Bytes of cached rows that a sequence of `tokens` tokens holds for its next token, over
// all layers. Where an indexer selects fewer than there are, an upper bound.
int64_t CachedBytes(const model::ModelConfig& config,
                    const worker::KvPool::PageFormat& format, int64_t tokens);

}  // namespace tessera::cli

#endif  // TESSERA_CLI_BENCH_STEP_COST_H_
