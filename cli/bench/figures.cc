#include "cli/bench/figures.h"

#include <algorithm>
#include <charconv>
#include <cstdint>
#include <fstream>
#include <sstream>
#include <string>
#include <string_view>
#include <system_error>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "fmt/format.h"
#include "nlohmann/json.hpp"

#include "common/status.h"

namespace tessera::cli {
namespace {

// Of one list: more is a mistake.
constexpr size_t kMaxCounts = 64;

}  // namespace

double Spread::Median() const {
  std::vector<double> sorted = rounds;
  std::sort(sorted.begin(), sorted.end());
  const size_t half = sorted.size() / 2;
  return sorted.size() % 2 == 1 ? sorted[half] : (sorted[half - 1] + sorted[half]) / 2;
}

double Spread::Min() const { return *std::min_element(rounds.begin(), rounds.end()); }

double Spread::Max() const { return *std::max_element(rounds.begin(), rounds.end()); }

nlohmann::json Spread::Json() const {
  return {{"median", Median()}, {"min", Min()}, {"max", Max()}, {"rounds", rounds}};
}

std::string Spread::Text(double factor, std::string_view unit) const {
  return fmt::format("{:.3f} {} ({:.3f} to {:.3f})", Median() * factor, unit,
                     Min() * factor, Max() * factor);
}

absl::StatusOr<std::vector<int64_t>> ReadCounts(const char* flag, const std::string& text,
                                                int64_t max) {
  std::vector<int64_t> counts;
  std::istringstream words(text);
  for (std::string word; std::getline(words, word, ',');) {
    int64_t value = 0;
    const auto [end, error] =
        std::from_chars(word.data(), word.data() + word.size(), value);
    if (error != std::errc() || end != word.data() + word.size() || value < 1 ||
        value > max) {
      return InvalidArgumentF("{} {}: \"{}\", expected a number from 1 to {}", flag, text,
                              word, max);
    }
    counts.push_back(value);
  }
  if (counts.empty() || counts.size() > kMaxCounts) {
    return InvalidArgumentF("{}: {} values, expected 1 to {}", flag, counts.size(),
                            kMaxCounts);
  }
  return counts;
}

absl::Status WriteJson(const std::string& path, const nlohmann::json& json) {
  std::ofstream out(path);
  out << json.dump(2) << '\n';
  out.close();
  return out ? absl::OkStatus() : UnavailableF("cannot write {}", path);
}

}  // namespace tessera::cli
