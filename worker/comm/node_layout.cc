#include "worker/comm/node_layout.h"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <vector>

#include "common/status.h"
#include "common/status_macros.h"

namespace tessera::worker {
namespace {

// Longer names are told apart by their first 63 bytes, as DNS labels are.
constexpr size_t kHostBytes = 64;

struct Place {
  int64_t told = 0;
  char host[kHostBytes] = {};
};

bool SameHost(const Place& a, const Place& b) {
  return std::memcmp(a.host, b.host, kHostBytes) == 0;
}

// Equal runs of neighbours with one host each, no host twice; 0 if it is not so.
int RunLength(std::span<const Place> places) {
  const auto run = static_cast<size_t>(
      std::find_if(places.begin(), places.end(),
                   [&](const Place& place) { return !SameHost(place, places[0]); }) -
      places.begin());
  if (places.size() % run != 0) {
    return 0;
  }
  for (size_t i = 0; i < places.size(); ++i) {
    for (size_t j = i + 1; j < places.size(); ++j) {
      if (SameHost(places[i], places[j]) != (i / run == j / run)) {
        return 0;
      }
    }
  }
  return static_cast<int>(run);
}

}  // namespace

absl::StatusOr<int> AgreeOnRanksPerNode(Communicator& ep, std::string_view host,
                                        int told) {
  Place own;
  own.told = told;
  std::memcpy(own.host, host.data(), std::min(host.size(), kHostBytes - 1));
  std::vector<Place> places(static_cast<size_t>(ep.size()));
  const std::vector<int64_t> counts(places.size(), sizeof(Place));
  TESSERA_RETURN_IF_ERROR(ep.AllGather(std::as_bytes(std::span(&own, 1)), counts,
                                       std::as_writable_bytes(std::span(places))));
  for (size_t rank = 0; rank < places.size(); ++rank) {
    if (places[rank].told != places[0].told) {
      return InvalidArgumentF("rank 0 was told {} ranks per node, rank {} {}",
                              places[0].told, rank, places[rank].told);
    }
  }
  if (told < 0 || (told > 0 && ep.size() % told != 0)) {
    return InvalidArgumentF("{} ranks per node, expected a divisor of {} ranks", told,
                            ep.size());
  }
  const int run = told > 0 ? told : RunLength(places);
  return run > 1 && run < ep.size() ? run : 0;
}

}  // namespace tessera::worker
