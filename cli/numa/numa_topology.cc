#include "cli/numa/numa_topology.h"

#include <algorithm>
#include <charconv>
#include <cstddef>
#include <iterator>
#include <set>
#include <utility>

#include "absl/status/status.h"
#include "fmt/format.h"

#include "common/small_file.h"
#include "common/status.h"
#include "common/status_macros.h"

namespace tessera::cli {
namespace {

// A number in front of `text`, which loses it; false: there is none.
bool TakeNumber(std::string_view* text, int* number) {
  const auto [end, error] =
      std::from_chars(text->data(), text->data() + text->size(), *number);
  if (error != std::errc() || text->front() == '-') {
    return false;
  }
  text->remove_prefix(static_cast<size_t>(end - text->data()));
  return true;
}

bool TakeSign(std::string_view* text, char sign) {
  if (text->empty() || text->front() != sign) {
    return false;
  }
  text->remove_prefix(1);
  return true;
}

absl::StatusOr<std::vector<int>> ReadNumberList(const std::string& path, int limit) {
  TESSERA_ASSIGN_OR_RETURN(std::string text, ReadSmallFile(path, "a list of numbers"));
  if (!text.empty() && text.back() == '\n') {
    text.pop_back();
  }
  auto numbers = ParseNumberList(text, limit);
  if (!numbers.ok()) {
    return WithContext(numbers.status(), path);
  }
  return numbers;
}

}  // namespace

absl::StatusOr<std::vector<int>> ParseNumberList(std::string_view text, int limit) {
  std::vector<int> numbers;
  std::string_view rest = text;
  while (!rest.empty()) {
    int first = 0;
    if ((!numbers.empty() && !TakeSign(&rest, ',')) || !TakeNumber(&rest, &first)) {
      return InvalidArgumentF(
          "expected a list like 0-3,8-11, got something else after {} numbers",
          numbers.size());
    }
    int last = first;
    if (TakeSign(&rest, '-') && !TakeNumber(&rest, &last)) {
      return InvalidArgumentF("expected a number after {}-", first);
    }
    if (last < first || last >= limit || (!numbers.empty() && first <= numbers.back())) {
      return InvalidArgumentF("{}-{} after {} numbers, expected rising numbers below {}",
                              first, last, numbers.size(), limit);
    }
    for (int number = first; number <= last; ++number) {
      numbers.push_back(number);
    }
  }
  return numbers;
}

std::string ShowNumberList(std::span<const int> numbers) {
  std::string text;
  for (size_t begin = 0; begin < numbers.size();) {
    size_t end = begin + 1;
    while (end < numbers.size() && numbers[end] == numbers[end - 1] + 1) {
      ++end;
    }
    text += fmt::format("{}{}", begin == 0 ? "" : ",", numbers[begin]);
    if (end - begin > 1) {
      text += fmt::format("-{}", numbers[end - 1]);
    }
    begin = end;
  }
  return text;
}

absl::StatusOr<NumaTopology> ReadNumaTopology(const std::string& folder) {
  TESSERA_ASSIGN_OR_RETURN(const std::vector<int> online,
                           ReadNumberList(folder + "/online", kMaxNumaNodes));
  // Since Linux 2.6.24; where it is missing every node is taken to have memory.
  auto memory = ReadNumberList(folder + "/has_memory", kMaxNumaNodes);
  if (!memory.ok() && memory.status().code() != absl::StatusCode::kNotFound) {
    return memory.status();
  }
  NumaTopology topology;
  std::set<int> seen;
  for (const int id : online) {
    const std::string path = fmt::format("{}/node{}/cpulist", folder, id);
    TESSERA_ASSIGN_OR_RETURN(std::vector<int> cpus, ReadNumberList(path, kMaxCpus));
    for (const int cpu : cpus) {
      if (!seen.insert(cpu).second) {
        return InvalidArgumentF("{}: cpu {} is at another node, too", path, cpu);
      }
    }
    topology.nodes.push_back(
        {.id = id,
         .cpus = std::move(cpus),
         .has_memory =
             !memory.ok() || std::binary_search(memory->begin(), memory->end(), id)});
  }
  return topology;
}

NumaTopology NodesOfCpus(const NumaTopology& topology, std::span<const int> cpus) {
  NumaTopology result;
  for (const NumaNode& node : topology.nodes) {
    NumaNode common = {.id = node.id, .cpus = {}, .has_memory = node.has_memory};
    std::set_intersection(node.cpus.begin(), node.cpus.end(), cpus.begin(), cpus.end(),
                          std::back_inserter(common.cpus));
    if (!common.cpus.empty()) {
      result.nodes.push_back(std::move(common));
    }
  }
  return result;
}

}  // namespace tessera::cli
