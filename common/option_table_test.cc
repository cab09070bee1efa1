#include "common/option_table.h"

#include <fstream>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "gtest/gtest.h"

#include "tests/testing/status_matchers.h"

namespace tessera {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using testing::IsOk;
using ::testing::Not;
using testing::StatusIs;

constexpr auto kInvalid = absl::StatusCode::kInvalidArgument;

struct Options {
  std::string model = "models/demo";
  int port = 8000;
  int tp = 1;
  bool prefix_caching = true;
  double memory = 0.9;
  absl::Duration timeout = absl::Seconds(45);
  std::optional<int64_t> seed;
  std::string api_key;
  std::string dtype = "auto";
  std::vector<std::string> names;
};

class OptionTableTest : public ::testing::Test {
 protected:
  OptionTableTest() {
    table_.Add("model", &options_.model, "checkpoint folder").Positional("MODEL");
    table_.Add("port", &options_.port, "port of the API").Range(0, 65535);
    table_.Heading("Parallelism");
    table_.Add("tensor-parallel-size", &options_.tp, "ranks that share a tensor")
        .Short("tp");
    table_.Heading("Engine");
    table_.Add("enable-prefix-caching", &options_.prefix_caching, "reuse prefixes");
    table_.Add("gpu-memory-utilization", &options_.memory, "share").Range(0, 1);
    table_.Add("shutdown-timeout", &options_.timeout, "drain").AtLeast(0.5);
    table_.Add("seed", &options_.seed, "seed of the generator");
    table_.Add("api-key", &options_.api_key, "key of the API").Secret();
    table_.Add("dtype", &options_.dtype, "arithmetic").OneOf({"auto", "float32"});
    table_.Add("served-model-name", &options_.names, "names in the API");
    table_.Ignore("trust-remote-code", false, "no remote code ever runs");
    table_.Ignore("tool-call-parser", true, "the checkpoint says it");
    table_.Refuse("enable-lora", "adapters are not supported");
  }

  absl::StatusOr<ParsedOptions> Parse(const std::vector<std::string>& arguments) {
    return table_.Parse(arguments, [this](const std::string& name) {
      const auto it = environment_.find(name);
      return it == environment_.end() ? std::nullopt : std::optional(it->second);
    });
  }

  std::string Yaml(const std::string& text) {
    const std::string path = ::testing::TempDir() + "option_table_test.yaml";
    std::ofstream(path) << text;
    return path;
  }

  Options options_;
  OptionTable table_{"serve", "Serves a model."};
  std::map<std::string, std::string> environment_;
};

TEST_F(OptionTableTest, NothingGivenLeavesTheDefaults) {
  ASSERT_THAT(Parse({}), IsOk());
  EXPECT_EQ(options_.model, "models/demo");
  EXPECT_EQ(options_.port, 8000);
  EXPECT_TRUE(options_.prefix_caching);
  EXPECT_EQ(options_.seed, std::nullopt);
  EXPECT_EQ(table_.Find("port")->origin(), OptionOrigin::kDefault);
}

TEST_F(OptionTableTest, FlagsOfEveryTypeReachTheirFields) {
  ASSERT_THAT(
      Parse({"dir", "--port", "1", "-tp", "4", "--no-enable-prefix-caching",
             "--gpu-memory-utilization=0.5", "--shutdown-timeout", "2m", "--seed", "-7",
             "--api-key", "k", "--dtype", "float32", "--served-model-name", "a", "b"}),
      IsOk());
  EXPECT_EQ(options_.model, "dir");
  EXPECT_EQ(options_.port, 1);
  EXPECT_EQ(options_.tp, 4);
  EXPECT_FALSE(options_.prefix_caching);
  EXPECT_EQ(options_.memory, 0.5);
  EXPECT_EQ(options_.timeout, absl::Minutes(2));
  EXPECT_EQ(options_.seed, -7);
  EXPECT_EQ(options_.api_key, "k");
  EXPECT_EQ(options_.dtype, "float32");
  EXPECT_THAT(options_.names, ElementsAre("a", "b"));
}

TEST_F(OptionTableTest, FlagsWinOverTheEnvironmentWhichWinsOverTheFile) {
  const std::string path = Yaml("port: 1\ntensor-parallel-size: 1\nseed: 1\n");
  environment_ = {{"TESSERA_TENSOR_PARALLEL_SIZE", "2"}, {"TESSERA_SEED", "2"}};
  ASSERT_THAT(Parse({"--config", path, "--seed", "3"}), IsOk());
  EXPECT_EQ(options_.port, 1);
  EXPECT_EQ(options_.tp, 2);
  EXPECT_EQ(options_.seed, 3);
  EXPECT_EQ(table_.Find("port")->origin(), OptionOrigin::kYaml);
  EXPECT_EQ(table_.Find("tensor-parallel-size")->origin(), OptionOrigin::kEnvironment);
  EXPECT_EQ(table_.Find("seed")->origin(), OptionOrigin::kFlag);
}

TEST_F(OptionTableTest, TheEnvironmentMayNameTheFile) {
  environment_["TESSERA_CONFIG"] = Yaml("port: 5\nenable-prefix-caching: false\n");
  ASSERT_THAT(Parse({}), IsOk());
  EXPECT_EQ(options_.port, 5);
  EXPECT_FALSE(options_.prefix_caching);
}

TEST_F(OptionTableTest, AListReplacesTheListOfAWeakerSource) {
  environment_["TESSERA_SERVED_MODEL_NAME"] = "c,d";
  ASSERT_THAT(Parse({"--config", Yaml("served-model-name: [a, b]\n")}), IsOk());
  EXPECT_THAT(options_.names, ElementsAre("c", "d"));
}

TEST_F(OptionTableTest, UnknownFlagsAreRefusedWithTheLikelyName) {
  EXPECT_THAT(Parse({"--prot", "1"}),
              StatusIs(kInvalid, AllOf(HasSubstr("--prot is not an option of serve"),
                                       HasSubstr("did you mean --port?"))));
}

TEST_F(OptionTableTest, UnknownKeysAreRefusedWithTheirLine) {
  EXPECT_THAT(Parse({"--config", Yaml("port: 1\ndtyp: auto\n")}),
              StatusIs(kInvalid, AllOf(HasSubstr("line 2: dtyp"),
                                       HasSubstr("did you mean dtype?"))));
}

TEST_F(OptionTableTest, AFileMayNotNameAnotherFile) {
  EXPECT_THAT(Parse({"--config", Yaml("config: other.yaml\n")}), StatusIs(kInvalid));
}

TEST_F(OptionTableTest, DuplicateKeysAreRefused) {
  EXPECT_THAT(Parse({"--config", Yaml("port: 1\nport: 1\n")}),
              StatusIs(kInvalid, HasSubstr("twice")));
}

TEST_F(OptionTableTest, AMissingFileIsNotFound) {
  EXPECT_THAT(Parse({"--config", "/nonexistent.yaml"}),
              StatusIs(absl::StatusCode::kNotFound));
}

TEST_F(OptionTableTest, BadValuesNameTheirSource) {
  EXPECT_THAT(Parse({"--port", "x"}), StatusIs(kInvalid, HasSubstr("--port: 'x'")));
  environment_["TESSERA_PORT"] = "y";
  EXPECT_THAT(Parse({}), StatusIs(kInvalid, HasSubstr("TESSERA_PORT: 'y'")));
}

TEST_F(OptionTableTest, AMistakeInAWeakerSourceIsNotHidden) {
  environment_["TESSERA_PORT"] = "y";
  EXPECT_THAT(Parse({"--port", "1"}), StatusIs(kInvalid, HasSubstr("TESSERA_PORT")));
}

TEST_F(OptionTableTest, BoundsAndChoicesAreChecked) {
  EXPECT_THAT(Parse({"--port", "65536"}), StatusIs(kInvalid, HasSubstr("0 to 65535")));
  EXPECT_THAT(Parse({"--port", "-1"}), StatusIs(kInvalid));
  EXPECT_THAT(Parse({"--gpu-memory-utilization", "1.1"}), StatusIs(kInvalid));
  EXPECT_THAT(Parse({"--shutdown-timeout", "100ms"}),
              StatusIs(kInvalid, HasSubstr("less than 0.5")));
  EXPECT_THAT(Parse({"--dtype", "int3"}), StatusIs(kInvalid, HasSubstr("auto, float32")));
  EXPECT_THAT(Parse({"--port", "65535"}), IsOk());
}

TEST_F(OptionTableTest, SurplusArgumentsAreRefused) {
  EXPECT_THAT(Parse({"a", "b"}), StatusIs(kInvalid, HasSubstr("'b'")));
}

TEST_F(OptionTableTest, IgnoredFlagsGiveANotice) {
  const auto parsed = Parse({"--trust-remote-code", "--tool-call-parser", "deepseek"});
  ASSERT_THAT(parsed, IsOk());
  EXPECT_THAT(parsed->notices, ElementsAre(HasSubstr("no remote code ever runs"),
                                           HasSubstr("checkpoint")));
}

TEST_F(OptionTableTest, RefusedFlagsSayWhy) {
  EXPECT_THAT(Parse({"--enable-lora"}),
              StatusIs(absl::StatusCode::kUnimplemented,
                       HasSubstr("adapters are not supported")));
}

TEST_F(OptionTableTest, ASecretOnTheCommandLineIsNoticedAndNotShown) {
  const auto parsed = Parse({"--api-key", "hunter2", "--print-config"});
  ASSERT_THAT(parsed, IsOk());
  EXPECT_THAT(parsed->notices, ElementsAre(HasSubstr("TESSERA_API_KEY")));
  EXPECT_THAT(
      parsed->print_and_exit,
      ::testing::Optional(AllOf(HasSubstr("***\"  # flag"), Not(HasSubstr("hunter2")))));
}

TEST_F(OptionTableTest, ASecretInTheEnvironmentIsNoMistake) {
  environment_["TESSERA_API_KEY"] = "hunter2";
  const auto parsed = Parse({"--print-config"});
  ASSERT_THAT(parsed, IsOk());
  EXPECT_THAT(parsed->notices, IsEmpty());
  EXPECT_THAT(*parsed->print_and_exit, Not(HasSubstr("hunter2")));
}

TEST_F(OptionTableTest, PrintConfigShowsValuesAndOrigins) {
  environment_["TESSERA_PORT"] = "9000";
  const auto parsed = Parse({"--print-config", "--dtype", "float32"});
  ASSERT_THAT(parsed, IsOk());
  for (const char* line :
       {"port: 9000  # environment, TESSERA_PORT\n", "dtype: float32  # flag, --dtype\n",
        "# seed:   # default\n", "model: models/demo  # default\n",
        "shutdown-timeout: 45s  #"}) {
    EXPECT_THAT(*parsed->print_and_exit, HasSubstr(line));
  }
}

TEST_F(OptionTableTest, PrintedConfigReadsBackToTheSameValues) {
  const auto parsed = Parse({"--print-config", "--seed", "3", "--model", "a # b",
                             "--served-model-name", "x, y", "z"});
  ASSERT_THAT(parsed, IsOk());
  const Options first = options_;
  Options second;
  OptionTable table("serve", "");
  table.Add("model", &second.model, "");
  table.Add("port", &second.port, "");
  table.Add("tensor-parallel-size", &second.tp, "");
  table.Add("enable-prefix-caching", &second.prefix_caching, "");
  table.Add("gpu-memory-utilization", &second.memory, "");
  table.Add("shutdown-timeout", &second.timeout, "");
  table.Add("seed", &second.seed, "");
  table.Add("api-key", &second.api_key, "");
  table.Add("dtype", &second.dtype, "");
  table.Add("served-model-name", &second.names, "");
  const std::vector<std::string> arguments = {"--config", Yaml(*parsed->print_and_exit)};
  ASSERT_THAT(table.Parse(arguments, [](const std::string&) { return std::nullopt; }),
              IsOk());
  EXPECT_EQ(second.model, first.model);
  EXPECT_EQ(second.timeout, first.timeout);
  EXPECT_EQ(second.seed, first.seed);
  EXPECT_EQ(second.memory, first.memory);
  EXPECT_EQ(second.names, first.names);
}

TEST_F(OptionTableTest, HelpShowsDefaultsAndNoSecret) {
  options_.api_key = "hunter2";
  const auto parsed = Parse({"--help"});
  ASSERT_THAT(parsed, IsOk());
  for (const char* part :
       {"(default 8000)", "(also -tp)", "{auto,float32}", "Accepted without effect:"}) {
    EXPECT_THAT(*parsed->print_and_exit, HasSubstr(part));
  }
  EXPECT_THAT(*parsed->print_and_exit, Not(HasSubstr("hunter2")));
}

}  // namespace
}  // namespace tessera
