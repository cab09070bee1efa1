// Tiny checkpoints: models of the family with shapes that the bundled demo does not have
// (both Engram contracts, every weight format, odd sizes), with random weights, written
// to a folder as a whole checkpoint. What tests load where the demo model proves too
// little.
#ifndef TESSERA_TESTS_TESTING_TINY_CHECKPOINT_H_
#define TESSERA_TESTS_TESTING_TINY_CHECKPOINT_H_

#include <cstdint>
#include <iosfwd>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"

#include "model/tensors/tensor_inventory.h"

namespace tessera::testing {

// A row of the table of tiny models.
struct TinyModel {
  std::string name;           // letters, digits and underscores
  std::string config_json;    // the whole config.json
  int64_t num_token_ids = 0;  // ids that a prompt may hold; the vocabulary is larger
  model::EngramRowFormat engram_rows = model::EngramRowFormat::kBf16;
};

// Its name, for the messages of parameterised tests.
void PrintTo(const TinyModel& tiny, std::ostream* os);

// All of them, each with 8 attention heads, so that tensor parallelism up to 8 works.
std::vector<TinyModel> TinyModels();
// Another, whose experts are FP8 and whose contractions that TP cuts have leaves of 128
// inputs: what numerics fp8-g128 round. The experts' widths end inside of a group of
// inputs.
TinyModel TinyFp8Experts();
// That of this name alone; all of them where TESSERA_LONG_TESTS is set.
std::vector<TinyModel> TinyModelOrAll(std::string_view name);

// Writes config.json and model.safetensors into `directory`, which must exist. The same
// seed gives the same bytes; weights are scaled so that activations stay near 1. Errors:
// a config that ParseModelConfig refuses, a file that cannot be written.
absl::Status WriteTinyCheckpoint(const TinyModel& tiny, uint64_t seed,
                                 const std::string& directory);

// `length` token ids of the model, with repeated n-grams, from a seed.
std::vector<int32_t> TinyPrompt(const TinyModel& tiny, int64_t length, uint64_t seed);

}  // namespace tessera::testing

#endif  // TESSERA_TESTS_TESTING_TINY_CHECKPOINT_H_
