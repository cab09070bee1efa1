// Figures of `tessera bench`: medians over rounds, and the file that holds every round.
//
// It stands under the subcommands that measure this machine in rounds.
#ifndef TESSERA_CLI_BENCH_FIGURES_H_
#define TESSERA_CLI_BENCH_FIGURES_H_

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "nlohmann/json.hpp"

namespace tessera::cli {

// A figure over the rounds, of which there must be one before it is asked for anything.
struct Spread {
  std::vector<double> rounds;

  double Median() const;
  double Min() const;
  double Max() const;
  // {"median", "min", "max", "rounds"}.
  nlohmann::json Json() const;
  // "12.345 us (12.100 to 13.200)": the rounds times `factor`, with three decimals.
  std::string Text(double factor, std::string_view unit) const;
};

// Counts with commas between: what --batch-sizes and its like take, at most 64 of them.
// kInvalidArgument, naming the flag, for anything else, or a count outside 1..max.
absl::StatusOr<std::vector<int64_t>> ReadCounts(const char* flag, const std::string& text,
                                                int64_t max);

// `json` as the whole content of the file. kUnavailable when it cannot be written.
absl::Status WriteJson(const std::string& path, const nlohmann::json& json);

}  // namespace tessera::cli

#endif  // TESSERA_CLI_BENCH_FIGURES_H_
