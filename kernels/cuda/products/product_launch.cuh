// The host's side of the products of fp8_gemm.cu and fp4_gemm.cu: tensor maps, items and
// the launch of a kernel that is a ProductTile.
#ifndef TESSERA_KERNELS_CUDA_PRODUCTS_PRODUCT_LAUNCH_CUH_
#define TESSERA_KERNELS_CUDA_PRODUCTS_PRODUCT_LAUNCH_CUH_

#include <cstdint>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

#include "common/status.h"
#include "common/status_macros.h"
#include "kernels/cuda/products/fp8_tokens.h"
#include "kernels/cuda/products/product_tile.cuh"
#include "kernels/cuda/products/weight_tile_map.h"
#include "kernels/fp8_products.h"

namespace tessera::kernels::cuda {

inline constexpr int64_t kMaxGridRows = 65535;

// What a launch needs beside its tokens.
struct ProductArgs {
  TileWeights weights;
  TileItems items;
  int64_t inputs = 0;
  int64_t outputs = 0;
  int64_t leaves = 1;  // that the inputs are cut into; results are [leaf, row]
  uint32_t stages = 0;
  uint32_t shared_bytes = 0;
};

inline absl::StatusOr<TileWeights> WeightsOfMatrix(const WeightView& w) {
  TileWeights weights;
  TESSERA_ASSIGN_OR_RETURN(weights.map, WeightTileMap(w));
  weights.weight = WeightOf(w);
  return weights;
}

// Of `rows` items' tokens.
inline ProductArgs ArgsOfItems(const ExpertMatrices& w, const ListedItems& items,
                               int64_t rows, int64_t tile_tokens) {
  TESSERA_CHECK(w.part->maps.size > 0);
  ProductArgs args;
  args.inputs = w.weight().cols;
  args.weights.weight = w.weight();
  args.weights.maps = w.part->maps;
  args.weights.map_begin = w.matrix;
  args.weights.map_stride = ExpertPart::kMatrices;
  args.weights.places = w.part->addresses;
  args.weights.values_begin = 2 * w.matrix;
  args.weights.places_stride = ExpertPart::kAddresses;
  args.items.rows = rows;
  args.items.offsets = ColumnOf<const int32_t>(items.item_offsets);
  args.items.first = items.first;
  args.items.by_item = rows <= args.items.NumPlaces(tile_tokens);
  return args;
}

inline absl::StatusOr<GpuTileMap> TokenMap(const Fp8Tokens& x, uint32_t tile_tokens) {
  return GpuTileMap::Create({.data = x.codes.data,
                             .element_bytes = 1,
                             .rows = static_cast<uint64_t>(x.codes.dim(0)),
                             .cols = static_cast<uint64_t>(x.codes.dim(1)),
                             .row_bytes = static_cast<uint64_t>(x.codes.stride(0)),
                             .box_rows = tile_tokens,
                             .box_cols = kBlockInputs,
                             .swizzle = Swizzle::k128});
}

inline absl::StatusOr<GpuTileMap> ScaleMap(const Fp8Tokens& x, uint32_t tile_tokens) {
  return GpuTileMap::Create(
      {.data = x.scales.data,
       .element_bytes = sizeof(float),
       .rows = static_cast<uint64_t>(x.scales.dim(0)),
       .cols = static_cast<uint64_t>(x.scales.dim(1)),
       .row_bytes = static_cast<uint64_t>(x.scales.stride(0)) * sizeof(float),
       .box_rows = 1,
       .box_cols = tile_tokens});
}

template <typename Kernel>
absl::Status LaunchProduct(GpuStream& stream, const Fp8Tokens& x, const ProductArgs& args,
                           TensorView out) {
  constexpr uint32_t kTokens = 2 * Kernel::kValues;
  TESSERA_CHECK_EQ(x.codes.dim(1), args.inputs);
  TESSERA_CHECK_EQ(x.scales.dim(0), BlocksFor(args.inputs, kFp8Group));
  TESSERA_CHECK_EQ(x.scales.dim(1), x.codes.dim(0));
  TESSERA_CHECK_EQ(out.dim(0), args.leaves * x.codes.dim(0));
  TESSERA_CHECK_EQ(out.dim(1), args.outputs);
  if (x.codes.dim(0) == 0 || args.outputs == 0) {
    return absl::OkStatus();
  }
  const int64_t tiles = args.items.NumTiles(kTokens);
  if (tiles > kMaxGridRows) {
    return InvalidArgumentF("fp8 product: {} tiles of tokens, expected at most {}", tiles,
                            kMaxGridRows);
  }
  Kernel kernel = {};
  TESSERA_ASSIGN_OR_RETURN(kernel.tokens, TokenMap(x, kTokens));
  TESSERA_ASSIGN_OR_RETURN(kernel.scales, ScaleMap(x, kTokens));
  kernel.weights = args.weights;
  kernel.out = RowsOf<float>(out);
  kernel.items = args.items;
  kernel.blocks = BlocksFor(args.inputs / args.leaves, kFp8Group);
  kernel.stages = args.stages;
  Launch(stream,
         {.grid = {BlocksFor(args.outputs, Kernel::Tile::kOutputs),
                   static_cast<uint32_t>(tiles), static_cast<uint32_t>(args.leaves)},
          .block = {Kernel::kMaxThreads},
          .shared_bytes = args.shared_bytes},
         kernel);
  return absl::OkStatus();
}

}  // namespace tessera::kernels::cuda

#endif  // TESSERA_KERNELS_CUDA_PRODUCTS_PRODUCT_LAUNCH_CUH_
