#include "model/tensors/dummy_values.h"

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <set>
#include <string>
#include <vector>

#include "gtest/gtest.h"

#include "model/config/model_config.h"
#include "model/formats/number_formats.h"
#include "model/tensors/tensor_inventory.h"

namespace tessera::model {
namespace {

struct Filled {
  ExpectedTensor tensor;
  std::vector<std::byte> bytes;
};

Filled Fill(const ModelConfig& config, const std::string& name, uint64_t seed = 3) {
  for (const ExpectedTensor& tensor :
       TensorInventory(config, DefaultEngramRowFormat(config))) {
    if (tensor.name == name) {
      Filled filled = {tensor,
                       std::vector<std::byte>(static_cast<size_t>(tensor.num_bytes()))};
      FillDummyTensor(config, tensor, seed, filled.bytes);
      return filled;
    }
  }
  ADD_FAILURE() << "no tensor " << name;
  return {};
}

ModelConfig Config(const std::string& folder) {
  return LoadModelConfig("tests/data/" + folder).value();
}

TEST(FillDummyTensor, TheSameSeedGivesTheSameBytesAndNamesDiffer) {
  const ModelConfig config = Config("v4");
  const auto bytes = [&](const char* name, uint64_t seed) {
    return Fill(config, name, seed).bytes;
  };
  EXPECT_EQ(bytes("layers.1.attn.wq_b.weight", 1), bytes("layers.1.attn.wq_b.weight", 1));
  EXPECT_NE(bytes("layers.1.attn.wq_b.weight", 1), bytes("layers.1.attn.wq_b.weight", 2));
  EXPECT_NE(bytes("layers.1.attn.wq_b.weight", 1), bytes("layers.3.attn.wq_b.weight", 1));
}

// The spread of a matrix, with its scales, is that of its inputs.
TEST(FillDummyTensor, MatricesKeepTheSizeOfWhatTheyMultiply) {
  const ModelConfig config = Config("v4");
  struct Case {
    const char* name;
    DType dtype;
    int64_t inputs;
  };
  for (const Case& test : {Case{"layers.1.attn.wkv", DType::kF8E4M3, 160},
                           Case{"layers.1.ffn.experts.3.w1", DType::kFp4, 160}}) {
    const Filled weight = Fill(config, std::string(test.name) + ".weight");
    const Filled scale = Fill(config, std::string(test.name) + ".scale");
    double squares = 0;
    size_t count = 0;
    for (const std::byte byte : weight.bytes) {
      const auto code = static_cast<uint8_t>(byte);
      if (test.dtype == DType::kFp4) {
        squares +=
            std::pow(Fp4ToFloat(code & 15), 2) + std::pow(Fp4ToFloat(code >> 4), 2);
        count += 2;
      } else {
        squares += std::pow(E4M3ToFloat(code), 2);
        count += 1;
      }
    }
    double mean_scale = 0;
    for (const std::byte byte : scale.bytes) {
      mean_scale += E8M0ToFloat(static_cast<uint8_t>(byte)) /
                    static_cast<double>(scale.bytes.size());
    }
    const double spread = std::sqrt(squares / static_cast<double>(count)) * mean_scale;
    const double wanted = 1 / std::sqrt(static_cast<double>(test.inputs));
    EXPECT_GT(spread, wanted / 3) << test.name;
    EXPECT_LT(spread, wanted * 2) << test.name;
  }
}

TEST(FillDummyTensor, VectorsAreWhatTheyAreCalled) {
  const ModelConfig config = Config("v4");
  const auto mean = [&](const char* name) {
    const Filled filled = Fill(config, name);
    double sum = 0;
    size_t count = 0;
    for (size_t at = 0; at < filled.bytes.size();
         at += DTypeBits(filled.tensor.dtype) / 8) {
      float value = 0;
      if (filled.tensor.dtype == DType::kBF16) {
        uint16_t bits = 0;
        std::memcpy(&bits, filled.bytes.data() + at, sizeof(bits));
        value = Bf16ToFloat(bits);
      } else {
        std::memcpy(&value, filled.bytes.data() + at, sizeof(value));
      }
      EXPECT_TRUE(std::isfinite(value)) << name;
      sum += value;
      ++count;
    }
    return sum / static_cast<double>(count);
  };
  EXPECT_NEAR(mean("layers.1.attn_norm.weight"), 1, 0.1);
  EXPECT_NEAR(mean("layers.1.attn.compressor.norm.weight"), 1, 0.1);
  EXPECT_NEAR(mean("hc_head_scale"), 1, 0.8);
  EXPECT_NEAR(mean("layers.1.hc_attn_fn"), 0, 0.02);
  EXPECT_NEAR(mean("embed.weight"), 0, 0.05);
}

TEST(FillDummyTensor, TablesNameDifferentExpertsThatThereAre) {
  const ModelConfig config = Config("v4");
  const Filled table = Fill(config, "layers.0.ffn.gate.tid2eid");
  for (size_t row = 0; row < 320; ++row) {
    std::set<int64_t> ids;
    for (size_t i = 0; i < 3; ++i) {
      int64_t id = 0;
      std::memcpy(&id, table.bytes.data() + 8 * (3 * row + i), sizeof(id));
      EXPECT_GE(id, 0);
      EXPECT_LT(id, 8);
      ids.insert(id);
    }
    EXPECT_EQ(ids.size(), 3u) << row;
  }
}

TEST(FillDummyTensor, ScalesAreNumbersThatEveryReaderTakes) {
  for (const char* folder : {"v4", "v41", "v32"}) {
    const ModelConfig config = Config(folder);
    for (const ExpectedTensor& tensor :
         TensorInventory(config, DefaultEngramRowFormat(config))) {
      if (tensor.dtype != DType::kF8E8M0) {
        continue;
      }
      std::vector<std::byte> bytes(static_cast<size_t>(tensor.num_bytes()));
      FillDummyTensor(config, tensor, 1, bytes);
      for (const std::byte byte : bytes) {
        // Packed Engram rows take neither 0 nor 255.
        EXPECT_GT(static_cast<uint8_t>(byte), 0) << tensor.name;
        EXPECT_LT(static_cast<uint8_t>(byte), 255) << tensor.name;
      }
    }
  }
}

}  // namespace
}  // namespace tessera::model
