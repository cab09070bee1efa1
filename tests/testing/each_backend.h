// Test fixture: one run per backend and instruction set of this machine, for tests that
// state what an op computes value by value. That the backends agree: tests/parity.
#ifndef TESSERA_TESTS_TESTING_EACH_BACKEND_H_
#define TESSERA_TESTS_TESTING_EACH_BACKEND_H_

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "gtest/gtest.h"

#include "kernels/kernel_backend.h"

namespace tessera::kernels {

struct BackendLevel {
  std::string backend;
  std::string isa;
};

// Activations are float32. A level that the machine lacks is skipped.
class EachBackend : public testing::TestWithParam<BackendLevel> {
 protected:
  void SetUp() override {
    auto backend = CreateBackend({.name = GetParam().backend, .cpu_isa = GetParam().isa});
    if (!backend.ok()) {
      GTEST_SKIP() << backend.status();
    }
    backend_ = std::move(*backend);
    auto stream = backend_->CreateStream();
    ASSERT_TRUE(stream.ok());
    stream_ = std::move(*stream);
  }

  // Views of vectors that outlive them.
  static TensorView Floats(std::vector<float>& values,
                           std::initializer_list<int64_t> dims) {
    TensorView view(values.data(), DType::kF32, dims);
    TESSERA_CHECK_EQ(view.num_elements(), static_cast<int64_t>(values.size()));
    return view;
  }
  static TensorView Ints(std::vector<int32_t>& values,
                         std::initializer_list<int64_t> dims) {
    TensorView view(values.data(), DType::kI32, dims);
    TESSERA_CHECK_EQ(view.num_elements(), static_cast<int64_t>(values.size()));
    return view;
  }

  std::unique_ptr<KernelBackend> backend_;
  std::unique_ptr<Stream> stream_;
};

inline auto EveryLevel() {
  return testing::Values(BackendLevel{"reference", "auto"}, BackendLevel{"cpu", "scalar"},
                         BackendLevel{"cpu", "avx2"}, BackendLevel{"cpu", "avx512"},
                         BackendLevel{"cpu", "avx512vnni"});
}
inline std::string LevelName(const testing::TestParamInfo<BackendLevel>& level) {
  return level.param.backend + "_" + level.param.isa;
}

}  // namespace tessera::kernels

#endif  // TESSERA_TESTS_TESTING_EACH_BACKEND_H_
