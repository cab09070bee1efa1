// TensorView: a non-owning, strided view of up to four dimensions; what every op reads
// and writes. The last dimension is always contiguous (stride 1). Views are small values:
// pass them by value. A view does not say where its memory lies; all views of one call
// belong to the backend's device.
#ifndef TESSERA_KERNELS_TENSOR_VIEW_H_
#define TESSERA_KERNELS_TENSOR_VIEW_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <initializer_list>

#include "common/check.h"
#include "model/formats/dtype.h"

namespace tessera::kernels {

using model::DType;

// The C++ type of a storage type that ops address element by element.
template <typename T>
inline constexpr DType kDTypeOf = DType::kU8;
template <>
inline constexpr DType kDTypeOf<float> = DType::kF32;
template <>
inline constexpr DType kDTypeOf<double> = DType::kF64;
template <>
inline constexpr DType kDTypeOf<int32_t> = DType::kI32;
template <>
inline constexpr DType kDTypeOf<int64_t> = DType::kI64;

struct TensorView {
  static constexpr int kMaxRank = 4;

  void* data = nullptr;
  DType dtype = DType::kF32;
  int rank = 0;
  std::array<int64_t, kMaxRank> shape = {1, 1, 1, 1};
  std::array<int64_t, kMaxRank> strides = {0, 0, 0, 0};  // in elements

  TensorView() = default;

  // Contiguous, row-major.
  TensorView(void* memory, DType type, std::initializer_list<int64_t> dims)
      : data(memory), dtype(type), rank(static_cast<int>(dims.size())) {
    TESSERA_CHECK(rank >= 1 && rank <= kMaxRank);
    int i = 0;
    for (const int64_t dim : dims) {
      shape[static_cast<size_t>(i++)] = dim;
    }
    int64_t stride = 1;
    for (int at = rank - 1; at >= 0; --at) {
      strides[static_cast<size_t>(at)] = stride;
      stride *= shape[static_cast<size_t>(at)];
    }
  }

  int64_t dim(int i) const { return shape[static_cast<size_t>(i)]; }
  int64_t stride(int i) const { return strides[static_cast<size_t>(i)]; }
  bool empty() const { return num_elements() == 0; }
  int64_t num_elements() const {
    int64_t n = 1;
    for (int i = 0; i < rank; ++i) {
      n *= dim(i);
    }
    return n;
  }
  bool is_contiguous() const {
    int64_t expected = 1;
    for (int i = rank - 1; i >= 0; --i) {
      if (dim(i) != 1 && stride(i) != expected) {
        return false;
      }
      expected *= dim(i);
    }
    return true;
  }

  // First element; T must be the C++ type of `dtype`.
  template <typename T>
  T* as() const {
    TESSERA_DCHECK(dtype == kDTypeOf<T>);
    return static_cast<T*>(data);
  }
  // Address of element [i, 0, …], [i, j, 0, …].
  template <typename T>
  T* row(int64_t i) const {
    return as<T>() + i * strides[0];
  }
  template <typename T>
  T* row(int64_t i, int64_t j) const {
    return as<T>() + i * strides[0] + j * strides[1];
  }

  // [begin, begin + count) of dimension `axis`; the other dimensions stay.
  TensorView Slice(int axis, int64_t begin, int64_t count) const {
    TESSERA_CHECK(begin >= 0 && count >= 0 && begin + count <= dim(axis));
    TensorView out = *this;
    const size_t bits = model::DTypeBits(dtype);
    out.data = static_cast<std::byte*>(data) +
               static_cast<size_t>(begin * stride(axis)) * bits / 8;
    out.shape[static_cast<size_t>(axis)] = count;
    return out;
  }
  TensorView Rows(int64_t begin, int64_t count) const { return Slice(0, begin, count); }

  // The same memory with other dimensions; this view must be contiguous and of the same
  // size.
  TensorView Reshape(std::initializer_list<int64_t> dims) const {
    TESSERA_CHECK(is_contiguous());
    TensorView out(data, dtype, dims);
    TESSERA_CHECK_EQ(out.num_elements(), num_elements());
    return out;
  }

  // The last dimension split into [dim / inner, inner].
  TensorView SplitLast(int64_t inner) const {
    TESSERA_CHECK(rank < kMaxRank && dim(rank - 1) % inner == 0);
    TensorView out = *this;
    const auto last = static_cast<size_t>(rank - 1);
    out.shape[last] = dim(rank - 1) / inner;
    out.strides[last] = inner;
    out.shape[last + 1] = inner;
    out.strides[last + 1] = 1;
    out.rank = rank + 1;
    return out;
  }
};

}  // namespace tessera::kernels

#endif  // TESSERA_KERNELS_TENSOR_VIEW_H_
