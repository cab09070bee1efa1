// Documents of config.json for tests: read, changed in one place, and refused by name.
#ifndef TESSERA_TESTS_TESTING_CONFIG_DOCUMENTS_H_
#define TESSERA_TESTS_TESTING_CONFIG_DOCUMENTS_H_

#include <fstream>
#include <iterator>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"

#include "model/config/model_config.h"

namespace tessera::testing {

inline std::string ReadText(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  EXPECT_TRUE(in.good()) << path;
  return {std::istreambuf_iterator<char>(in), {}};
}

inline nlohmann::json ReadDocument(const std::string& path) {
  return nlohmann::json::parse(ReadText(path));
}

// The bundled model's.
inline nlohmann::json Demo() { return ReadDocument("models/demo/config.json"); }

// Of a published model in tests/data/configs: "deepseek_v3", with `overrides` as
// "KEY=VALUE".
inline model::ModelConfig PublishedConfig(
    const std::string& name, const std::vector<std::string>& overrides = {}) {
  auto config = model::ParseModelConfig(ReadText("tests/data/configs/" + name + ".json"),
                                        overrides);
  EXPECT_TRUE(config.ok()) << config.status();
  return config.ok() ? *std::move(config) : model::ModelConfig();
}

// One change of a document, and a part of the message that refuses it.
struct Mutation {
  const char* field;     // "a/b" is the member b of the object a
  nlohmann::json value;  // discarded: the field is erased
  const char* message;
};

inline nlohmann::json Erased() {
  return nlohmann::json(nlohmann::json::value_t::discarded);
}

inline nlohmann::json Mutated(nlohmann::json document, const Mutation& mutation) {
  const nlohmann::json::json_pointer at(std::string("/") + mutation.field);
  if (mutation.value.is_discarded()) {
    document.at(at.parent_pointer()).erase(at.back());
  } else {
    document[at] = mutation.value;
  }
  return document;
}

inline void ExpectRefused(const nlohmann::json& document,
                          const std::vector<Mutation>& mutations) {
  for (const Mutation& mutation : mutations) {
    const absl::Status status =
        model::ParseModelConfig(Mutated(document, mutation).dump()).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument)
        << mutation.field << " " << mutation.value;
    EXPECT_THAT(std::string(status.message()), ::testing::HasSubstr(mutation.message))
        << mutation.field << " " << mutation.value;
  }
}

}  // namespace tessera::testing

#endif  // TESSERA_TESTS_TESTING_CONFIG_DOCUMENTS_H_
