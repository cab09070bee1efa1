// ModelShapes: the largest sizes that one model asks of the ops, in the letters of
// docs/glossary.md. A backend says from them, before anything is loaded, whether its
// scratch is wide enough (KernelBackend::CheckShapes); the ops themselves only CHECK.
#ifndef TESSERA_KERNELS_MODEL_SHAPES_H_
#define TESSERA_KERNELS_MODEL_SHAPES_H_

#include <cstdint>

namespace tessera::kernels {

// 0 where the model does not use an op. Sizes are of the whole model: a tensor-parallel
// rank asks for no more.
struct ModelShapes {
  int64_t row = 0;            // longest row that a linear, a norm or a gate reads
  int64_t head_rows = 0;      // n: rows of a head that HeadLinearTransposed contracts
  int64_t latent_dim = 0;     // c
  int64_t rope_dim = 0;       // r, beside the latent
  int64_t mla_selected = 0;   // rows that an MLA query attends to, where it selects
  int64_t shared_kv_dim = 0;  // D_h of rows that are keys and values
  int64_t index_heads = 0;    // J
  int64_t index_dim = 0;      // D
  int64_t index_topk = 0;
  int64_t candidate_blocks = 0;
  int64_t candidate_block_size = 0;  // in entries
  int64_t entry_ratio = 0;           // tokens per entry, the most
  int64_t num_experts = 0;           // E
  int64_t num_expert_groups = 0;
};

}  // namespace tessera::kernels

#endif  // TESSERA_KERNELS_MODEL_SHAPES_H_
