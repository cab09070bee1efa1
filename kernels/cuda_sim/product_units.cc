#include "kernels/cuda_sim/product_units.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "fmt/format.h"

namespace tessera::kernels::cuda_sim {
namespace {

constexpr uint32_t kPoison = 0x7fc0dead;  // a NaN that no sum makes
constexpr uint32_t kWarps = kWarpgroupThreads / cuda::kWarpSize;
constexpr uint32_t kWarpRows = kProductRows / kWarps;

bool IsPoison(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof(bits));
  return bits == kPoison;
}

void Poison(float* registers, uint32_t count) {
  for (uint32_t i = 0; i < count; ++i) {
    std::memcpy(registers + i, &kPoison, sizeof(kPoison));
  }
}

}  // namespace

void ProductUnits::BeginBlock(std::span<const std::byte> shared) {
  shared_ = shared;
  groups_.clear();
}

void ProductUnits::Run(uint32_t group, uint32_t first_agent,
                       std::span<const ProductThread> threads, const Place& place) {
  if (group >= groups_.size()) {
    groups_.resize(group + 1);
  }
  Warpgroup& state = groups_[group];
  switch (threads[0].call.op) {
    case ProductOp::kBegin:
      state.begun = true;
      return;
    case ProductOp::kMultiply:
      Multiply(state, first_agent, threads, place);
      return;
    case ProductOp::kCommit:
      ++state.open_batch;
      return;
    case ProductOp::kWait:
      Wait(state, first_agent, threads, place);
      return;
  }
}

bool ProductUnits::CheckMatrix(const ProductMatrix& matrix, bool by_rows,
                               std::span<const Moment> warps,
                               std::span<const ProductThread> threads,
                               const Place& place) {
  const std::string problem = matrix.Problem(static_cast<uint32_t>(shared_.size()));
  if (!problem.empty()) {
    checker_.Report(FindingKind::kBadDescriptor, threads[0].position, place, problem);
    return false;
  }
  // What the whole warpgroup knows: one warp that waited does not speak for the others.
  SyncClock knows = *threads[0].clock;
  for (const ProductThread& thread : threads) {
    knows.Meet(*thread.clock);
  }
  for (uint32_t piece = 0; piece < matrix.num_pieces(); ++piece) {
    const auto readers =
        by_rows ? warps.subspan(matrix.FirstRowOf(piece) / kWarpRows, 1) : warps;
    if (!checker_.ProductRead(threads[0].position, matrix.PieceAddress(piece), readers,
                              knows, place)) {
      return true;  // one finding a matrix
    }
  }
  return true;
}

std::vector<float> ProductUnits::Before(const std::optional<size_t>& known,
                                        const Warpgroup& group,
                                        std::span<const ProductThread> threads) const {
  if (!threads[0].call.accumulate) {
    return {};
  }
  if (known.has_value()) {
    return group.in_flight[*known].values;
  }
  const uint32_t columns = threads[0].call.columns;
  std::vector<float> before(size_t{kProductRows} * columns);
  for (uint32_t t = 0; t < kWarpgroupThreads; ++t) {
    for (uint32_t i = 0; i < columns / 2; ++i) {
      before[size_t{FragmentRow(t, i)} * columns + FragmentColumn(t, i)] =
          threads[t].call.registers[i];
    }
  }
  return before;
}

void ProductUnits::Multiply(Warpgroup& group, uint32_t first_agent,
                            std::span<const ProductThread> threads, const Place& place) {
  const ProductCall& call = threads[0].call;
  if (!group.begun) {
    checker_.Report(FindingKind::kMissingFence, threads[0].position, place,
                    "a product takes registers that no wgmma.fence has given away");
  }
  group.position = threads[0].position;
  group.place = place;
  std::array<Moment, kWarps> warps;
  for (uint32_t warp = 0; warp < kWarps; ++warp) {
    warps[warp] = {first_agent + warp, group.open_batch};
  }
  const auto a = ProductMatrix::Decode(call.a, cuda::Major::kK, kProductRows);
  const auto b = ProductMatrix::Decode(call.b, call.b_major, call.columns);
  if (!CheckMatrix(a, true, warps, threads, place) ||
      !CheckMatrix(b, false, warps, threads, place)) {
    return;
  }
  std::optional<size_t> known;
  for (size_t i = 0; i < group.in_flight.size(); ++i) {
    if (group.in_flight[i].registers[0] == call.registers) {
      known = i;
    }
  }
  InFlight result;
  result.columns = call.columns;
  result.batch = group.open_batch;
  result.values =
      cuda_sim::Multiply(call.type, shared_, a, b, Before(known, group, threads));
  for (uint32_t t = 0; t < kWarpgroupThreads; ++t) {
    result.registers[t] = threads[t].call.registers;
    Poison(threads[t].call.registers, call.columns / 2);
  }
  if (known.has_value()) {
    group.in_flight[*known] = std::move(result);
  } else {
    group.in_flight.push_back(std::move(result));
  }
}

void ProductUnits::Deliver(const InFlight& done, std::span<const ProductThread> threads,
                           const Place& place) {
  bool touched = false;
  for (uint32_t t = 0; t < kWarpgroupThreads; ++t) {
    for (uint32_t i = 0; i < done.columns / 2; ++i) {
      float& reg = done.registers[t][i];
      if (!IsPoison(reg) && !touched) {
        touched = true;
        checker_.Report(FindingKind::kRace, threads[t].position, place,
                        fmt::format("register {} of a product in flight was written", i));
      }
      reg = done.values[size_t{FragmentRow(t, i)} * done.columns + FragmentColumn(t, i)];
    }
  }
}

void ProductUnits::Wait(Warpgroup& group, uint32_t first_agent,
                        std::span<const ProductThread> threads, const Place& place) {
  const uint32_t committed = group.open_batch - 1;
  const uint32_t left = threads[0].call.left;
  const uint32_t done = committed > left ? committed - left : 0;
  std::erase_if(group.in_flight, [&](const InFlight& result) {
    if (result.batch > done) {
      return false;
    }
    Deliver(result, threads, place);
    return true;
  });
  for (uint32_t t = 0; t < kWarpgroupThreads; ++t) {
    const uint32_t agent = first_agent + t / cuda::kWarpSize;
    threads[t].clock->Set(agent, std::max(threads[t].clock->Of(agent), done));
  }
  group.begun = false;
}

void ProductUnits::FinishBlock() {
  for (const Warpgroup& group : groups_) {
    if (!group.in_flight.empty()) {
      checker_.Report(FindingKind::kUnfinished, group.position, group.place,
                      "a product whose result nobody waited for");
    }
  }
}

}  // namespace tessera::kernels::cuda_sim
