// Absorbed MLA for decode on the tensor cores of sm_90a, over paged latent rows in BF16
// or FP8 (docs/design/0010-hopper-kernels.md): for each token t and head h, over the rows
// s that the token sees, 0 to its position, or of those the ones that it selected,
//
//   a_s = (q[t, h] . row_s) * scale;  out[t, h] = sum_s e^(a_s) latent_s / sum_s e^(a_s)
//
// where row_s is 512 latent values and 64 rope keys, latent_s the former. Weights e^a are
// rounded to BF16, in both sums, and so is code times scale of a packed row; all else is
// float32.
//
// A row's context is cut every kMlaSplitRows rows; parts are merged in rising order. So
// its bits depend on its own query, cache rows and position alone: not on the batch, the
// page size, the other heads or the splits that a launch has.
//
// Not the default of any backend so far: compiled, run by the simulator, compared with no
// GPU. All views name device memory.
#ifndef TESSERA_KERNELS_CUDA_MLA_MLA_DECODE_H_
#define TESSERA_KERNELS_CUDA_MLA_MLA_DECODE_H_

#include <cstdint>

#include "absl/status/status.h"

#include "kernels/cuda/mla/mla_decode_config.h"
#include "kernels/cuda/primitives/device.cuh"
#include "kernels/op_args.h"
#include "kernels/tensor_view.h"

namespace tessera::kernels::cuda {

struct MlaDecodeArgs {
  TensorView q;  // bf16 [T, H, 576]: latent, then rope; the heads of a token follow it
  // bf16 [num_blocks, block_size, 576]: latent, then rope key; every row of a page that a
  // token sees part of must have been written once, with anything. Or kMlaPackedRows, u8
  // [num_blocks, block_size, 656].
  CacheView cache;
  PagedIndex index;  // position -1 is padding and gives zeros
  // [T, topk] i32: positions, or rank 0: all; of packed rows. Of each row the first
  // num_selected are read, and name positions that the token sees: a negative one is a
  // read outside of the cache.
  TensorView selected;
  TensorView num_selected;  // [T] i32, or rank 0 with it; 0 gives zeros
  // At least position + 1, or num_selected, of every token; one with more gets NaNs.
  int64_t rows_max = 0;
  double scale = 1;  // > 0
  // At least config.workspace_bytes, at a multiple of 16; it holds nothing between calls.
  void* workspace = nullptr;
  int64_t workspace_bytes = 0;
  TensorView out;  // f32 [T, H, 512]
};

// kFailedPrecondition with the refusal's name for a shape that CheckMlaDecode refuses,
// kInvalidArgument for what copies and vectors cannot reach: rows that do not begin at
// multiples of 16 bytes, queries or pages that do not follow one another; and for views
// of other lengths or types than theirs, or too small a workspace.
absl::Status MlaDecode(GpuStream& stream, const MlaDecodeArgs& args);

MlaDecodeShape ShapeOf(const MlaDecodeArgs& args);

// Queries as MlaDecode takes them, rounded to nearest even: q_latent f32 [T, H, 512] and
// q_rope f32 [T, H, 64] to q bf16 [T, H, 576], whose rows begin at multiples of 4 bytes.
void PackMlaQueries(GpuStream& stream, TensorView q_latent, TensorView q_rope,
                    TensorView q);

}  // namespace tessera::kernels::cuda

#endif  // TESSERA_KERNELS_CUDA_MLA_MLA_DECODE_H_
