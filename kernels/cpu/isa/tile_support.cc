#include "kernels/cpu/isa/tile_support.h"

#include <cerrno>
#include <cstdint>
#include <cstring>
#include <random>
#include <string_view>
#include <vector>

#if defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif

#include "fmt/format.h"

#include "common/status.h"
#include "common/status_macros.h"
#include "kernels/cpu/simd/simd_ops.h"

namespace tessera::kernels::cpu {
namespace {

// Whole blocks of rows of x, half a one and less; two tiles of weights, one, and a part
// of one; leaves of even and odd numbers of groups, the last of them cut short.
constexpr int64_t kCheckRows = 12 + 6 + 1;
constexpr int64_t kCheckBlocks = 2;
constexpr int64_t kCheckOutputs = 3 * 16 - 5;
constexpr LeafGroups kCheckLeaves = {2, {0, 96, 150}, {0, 3, 5}};
constexpr int64_t kCheckInputs = 150;
constexpr int64_t kCheckGroups = 5;
constexpr int64_t kCheckTiles = 3;

// The problem in the form of the scalar table, which is that of tiles.
class CheckProblem {
 public:
  CheckProblem() {
    constexpr uint64_t kSeed = 20;
    std::mt19937_64 random(kSeed);
    std::normal_distribution<float> normal;
    std::vector<float> x(kCheckRows * kCheckInputs);
    for (float& value : x) {
      value = normal(random);
    }
    const RoundedRows rows = {x_codes_.data(), scales_.data(), offsets_.data()};
    for (int64_t row = 0; row < kCheckRows; ++row) {
      scalar::kOps.round_row(x.data() + row * kCheckInputs, kCheckLeaves, rows, row);
    }
    std::uniform_int_distribution<int> byte(1, 255);
    for (uint8_t& code : codes_) {
      code = static_cast<uint8_t>(byte(random));
    }
    for (uint8_t& step : steps_) {
      step = static_cast<uint8_t>(100 + byte(random) % 32);
    }
    task_ = {.codes = codes_.data(),
             .steps = steps_.data(),
             .leaves = kCheckLeaves,
             .row_begin = 0,
             .row_end = kCheckOutputs,
             .x = rows,
             .x_row = 0,
             .count = kCheckRows,
             .out = nullptr,
             .out_stride = kCheckOutputs};
  }

  std::vector<float> Run(void (*rounded_linear)(const RoundedTask&)) const {
    std::vector<float> out(kCheckRows * kCheckOutputs, -1);
    RoundedTask task = task_;
    task.out = out.data();
    rounded_linear(task);
    return out;
  }

 private:
  static constexpr size_t kPlaces = kCheckBlocks * kRoundedBlockRows * kCheckGroups;

  std::vector<int8_t> x_codes_ = std::vector<int8_t>(kPlaces * kRoundedGroup);
  std::vector<float> scales_ = std::vector<float>(kPlaces);
  std::vector<int32_t> offsets_ = std::vector<int32_t>(kPlaces);
  std::vector<uint8_t> codes_ =
      std::vector<uint8_t>(kCheckTiles * kCheckGroups * kRoundedGroupBytes);
  std::vector<uint8_t> steps_ = std::vector<uint8_t>(kCheckTiles * kCheckGroups * 16);
  RoundedTask task_ = {};
};

// The same of e2m1 weights: a whole block of groups and a part of one.
constexpr int64_t kFp4Inputs = kInt8BlockValues + 3 * kInt8GroupValues;
constexpr int64_t kFp4Blocks = 2;
constexpr int64_t kFp4Done = 12 + 6;  // rows that suit tiles

class Fp4CheckProblem {
 public:
  Fp4CheckProblem() {
    constexpr uint64_t kSeed = 21;
    std::mt19937_64 random(kSeed);
    std::normal_distribution<float> normal;
    std::vector<float> x(kFp4Inputs);
    const Int8Rows rows = {x_codes_.data(), scales_.data(), offsets_.data(), kFp4Blocks};
    for (int64_t row = 0; row < kCheckRows; ++row) {
      for (float& value : x) {
        value = normal(random);
      }
      scalar::kOps.quantize_int8(x.data(), kFp4Inputs, rows, row);
    }
    for (uint8_t& code : codes_) {
      code = static_cast<uint8_t>(random() & 0xff);
    }
    for (uint8_t& scale : weight_scales_) {
      scale = static_cast<uint8_t>(110 + random() % 32);
    }
    task_ = {.weights = {.data = codes_.data(),
                         .row_bytes = kFp4Inputs / 2,
                         .format = WeightFormat::kFp4,
                         .scale_format = ScaleFormat::kE8M0,
                         .scales = weight_scales_.data(),
                         .scale_stride = kFp4Inputs / kInt8GroupValues,
                         .block_rows = 1,
                         .block_cols = kInt8GroupValues,
                         .row_offset = 0,
                         .col_offset = 0},
             .row_begin = 0,
             .row_end = kCheckOutputs,
             .inputs = kFp4Inputs,
             .x = rows,
             .count = kCheckRows,
             .out = nullptr,
             .out_stride = kCheckOutputs,
             .scratch = scratch_.data()};
  }

  template <typename Int8Linear>
  std::vector<float> Run(const Int8Linear& int8_linear) {
    std::vector<float> out(kCheckRows * kCheckOutputs, -1);
    task_.out = out.data();
    int8_linear(task_);
    return out;
  }

 private:
  static constexpr size_t kPlaces = kCheckRows * kFp4Blocks;

  std::vector<int8_t> x_codes_ = std::vector<int8_t>(kPlaces * kInt8BlockValues);
  std::vector<float> scales_ = std::vector<float>(kPlaces * 16);
  std::vector<int32_t> offsets_ = std::vector<int32_t>(kPlaces * 16);
  std::vector<uint8_t> codes_ = std::vector<uint8_t>(kCheckOutputs * kFp4Inputs / 2);
  std::vector<uint8_t> weight_scales_ =
      std::vector<uint8_t>(kCheckOutputs * kFp4Inputs / kInt8GroupValues);
  std::vector<float> scratch_ = std::vector<float>(kLinearScratchFloats);
  Int8Task task_ = {};
};

// The first `rows` rows of both.
absl::Status Compare(const std::vector<float>& seen, const std::vector<float>& expected,
                     int64_t rows, std::string_view what) {
  for (size_t i = 0; i < static_cast<size_t>(rows * kCheckOutputs); ++i) {
    if (std::memcmp(&seen[i], &expected[i], sizeof(float)) != 0) {
      return InternalF("tiles give other bits of {}: row {}, output {} is {}, not {}",
                       what, i / kCheckOutputs, i % kCheckOutputs, seen[i], expected[i]);
    }
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status RequestTiles() {
#if defined(__linux__) && defined(__x86_64__)
  // Linux 5.16 gives the 8 KiB of tile data to processes that ask for it.
  constexpr int64_t kRequestPermission = 0x1023;  // ARCH_REQ_XCOMP_PERM
  constexpr int64_t kTileData = 18;               // its bit in XCR0
  if (syscall(SYS_arch_prctl, kRequestPermission, kTileData) != 0) {
    return absl::FailedPreconditionError(
        fmt::format("the system refuses tile registers: {}", std::strerror(errno)));
  }
  return absl::OkStatus();
#else
  return absl::FailedPreconditionError("tile registers: not on this system");
#endif
}

absl::Status CheckTiles(const TileOps& tiles) {
  static_assert(kRoundedBlockRows * kCheckBlocks >= kCheckRows);
  const CheckProblem problem;
  TESSERA_RETURN_IF_ERROR(Compare(problem.Run(tiles.rounded_linear),
                                  problem.Run(scalar::kOps.rounded_linear), kCheckRows,
                                  "weights in 8 bits"));
  Fp4CheckProblem fp4;
  int64_t done = 0;
  const std::vector<float> seen =
      fp4.Run([&](const Int8Task& task) { done = tiles.int8_linear(task); });
  if (done != kFp4Done) {
    return InternalF("tiles took {} of {} rows, expected {}", done, kCheckRows, kFp4Done);
  }
  return Compare(seen, fp4.Run(scalar::kOps.int8_linear), done, "e2m1 weights");
}

absl::Status PrepareTiles() {
  TESSERA_RETURN_IF_ERROR(RequestTiles());
  return CheckTiles(amx::kTileOps);
}

}  // namespace tessera::kernels::cpu
