// Tokens as the products of fp8_gemm.h and fp4_gemm.h take them: rounded to e4m3, and
// grouped by the expert whose weights they meet. All views name device memory.
#ifndef TESSERA_KERNELS_CUDA_PRODUCTS_FP8_TOKENS_H_
#define TESSERA_KERNELS_CUDA_PRODUCTS_FP8_TOKENS_H_

#include <cstdint>

#include "kernels/cuda/expert_table.h"
#include "kernels/cuda/primitives/device.cuh"
#include "kernels/tensor_view.h"

namespace tessera::kernels::cuda {

// Rows of both lie at multiples of 16 bytes. What is read with a tile but belongs to no
// token must have been written once, with anything.
struct Fp8Tokens {
  TensorView codes;   // u8 [rows, inputs]
  TensorView scales;  // f32 [groups of 128 inputs, rows]
};

// Items of experts, sorted by expert: items item_offsets[e] .. item_offsets[e + 1] - 1
// are expert e's, as in GroupedExpertsArgs. A call takes those from `first` on, as many
// as its tokens or results have rows; rows behind the last item are left alone.
struct ListedItems {
  TensorView item_offsets;  // i32 [experts + 1]
  int64_t first = 0;
};

// Groups of a row's inputs as FakeQuantizeE4M3 rounds them: code * scale are its values.
// x f32 [rows, inputs]. A group with a NaN or infinity has a NaN as its scale.
void QuantizeTokens(GpuStream& stream, TensorView x, const Fp8Tokens& out);

// The same of the rows of `x` that items name: row_of_item i32, from item 0 on.
void QuantizeItems(GpuStream& stream, TensorView x, TensorView row_of_item,
                   const ListedItems& items, const Fp8Tokens& out);

// Rows that are rounded already: x u8 [rows, bytes of Fp8RowFormat(inputs)], at multiples
// of 4 bytes. Inputs a multiple of 4.
void GatherItems(GpuStream& stream, TensorView x, TensorView row_of_item,
                 const ListedItems& items, const Fp8Tokens& out);

// QuantizeItems of silu(gate) * up, limited and weighted as GroupedExpertsArgs has it.
// gate, up f32 [rows, inputs]; item_weights f32, from item 0 on, or of rank 0: ones.
void QuantizeActivations(GpuStream& stream, TensorView gate, TensorView up,
                         double swiglu_limit, TensorView item_weights,
                         const ListedItems& items, const Fp8Tokens& out);

// One matrix of each expert of `part`, whose table was made with maps.
struct ExpertMatrices {
  const ExpertPart* part = nullptr;
  int matrix = 0;  // gate, up, down

  const DeviceWeight& weight() const {
    const DeviceWeight* const matrices[] = {&part->gate, &part->up, &part->down};
    return *matrices[matrix];
  }
};

}  // namespace tessera::kernels::cuda

#endif  // TESSERA_KERNELS_CUDA_PRODUCTS_FP8_TOKENS_H_
