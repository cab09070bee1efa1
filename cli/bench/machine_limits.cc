#include "cli/bench/machine_limits.h"

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <fstream>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "absl/time/time.h"

#include "common/clock.h"
#include "kernels/cpu/isa/cpu_features.h"
#include "kernels/cpu/isa/tile_support.h"
#include "kernels/cpu/simd/tiles/tile_ops.h"

namespace tessera::cli {
namespace {

constexpr size_t kWords = size_t{32} << 20;
constexpr int kPasses = 3;
// Independent sums: a fused multiply-add takes 4 to 5 cycles and two start in each, so 8
// to 10 must be under way; 12 leave room.
constexpr size_t kSums = 12;
constexpr int64_t kIterations = 1 << 20;

// Runs kSums vectors of multiply-adds per iteration and returns how many that was. `sink`
// takes a result where the compiler could leave the work out.
using PeakLoop = int64_t (*)(float* sink);

struct Peak {
  std::string_view name;
  PeakLoop loop;
};

int64_t ScalarLoop(float* sink) {
  volatile float source = 1.0F;
  const float x = source;
  const float y = 1e-9F * x;
  float sums[kSums] = {};
  for (int64_t i = 0; i < kIterations; ++i) {
    for (float& sum : sums) {
      sum = sum * x + y;
    }
  }
  for (const float sum : sums) {
    *sink += sum;
  }
  return kIterations * static_cast<int64_t>(kSums);
}

#if defined(__x86_64__)

using Vector32 = int __attribute__((vector_size(32)));
using Vector64 = int __attribute__((vector_size(64)));

// The instructions are spelled out, so that what is measured is what is named, whatever a
// compiler makes of loops whose results nobody needs. All operands are zero, which takes
// these units as long as any other value.

__attribute__((target("avx2,fma"))) int64_t Avx2Loop(float*) {
  const Vector32 x = {};
  Vector32 sums[kSums] = {};
  for (int64_t i = 0; i < kIterations; ++i) {
#pragma GCC unroll 12
    for (size_t lane = 0; lane < kSums; ++lane) {
      asm volatile("vfmadd231ps %1, %1, %0" : "+x"(sums[lane]) : "x"(x));
    }
  }
  return kIterations * static_cast<int64_t>(kSums) * 8;
}

__attribute__((target("avx512f"))) int64_t Avx512Loop(float*) {
  const Vector64 x = {};
  Vector64 sums[kSums] = {};
  for (int64_t i = 0; i < kIterations; ++i) {
#pragma GCC unroll 12
    for (size_t lane = 0; lane < kSums; ++lane) {
      asm volatile("vfmadd231ps %1, %1, %0" : "+v"(sums[lane]) : "v"(x));
    }
  }
  return kIterations * static_cast<int64_t>(kSums) * 16;
}

// Bytes times bytes, pairs to 16 bits, pairs of those to 32: what AVX2 has.
__attribute__((target("avx2"))) int64_t Avx2Int8Loop(float*) {
  const Vector32 x = {};
  Vector32 sums[kSums] = {};
  for (int64_t i = 0; i < kIterations; ++i) {
#pragma GCC unroll 12
    for (size_t lane = 0; lane < kSums; ++lane) {
      Vector32 pairs;
      asm volatile("vpmaddubsw %1, %1, %0" : "=x"(pairs) : "x"(x));
      asm volatile("vpmaddwd %1, %0, %0" : "+x"(pairs) : "x"(x));
      asm volatile("vpaddd %1, %0, %0" : "+x"(sums[lane]) : "x"(pairs));
    }
  }
  return kIterations * static_cast<int64_t>(kSums) * 32;
}

__attribute__((target("avx512f,avx512vnni"))) int64_t VnniLoop(float*) {
  const Vector64 x = {};
  Vector64 sums[kSums] = {};
  for (int64_t i = 0; i < kIterations; ++i) {
#pragma GCC unroll 12
    for (size_t lane = 0; lane < kSums; ++lane) {
      asm volatile("vpdpbusd %1, %1, %0" : "+v"(sums[lane]) : "v"(x));
    }
  }
  return kIterations * static_cast<int64_t>(kSums) * 64;
}

// Products of whole tiles.
int64_t TileLoop(float*) { return kernels::cpu::amx::kTileOps.multiply(kIterations / 4); }

// As the cpu backend decides.
bool HasTiles() {
  namespace cpu = kernels::cpu;
  return cpu::CpuIsasOf(cpu::ReadCpu()).back() == cpu::CpuIsa::kAmx &&
         cpu::PrepareTiles().ok();
}

Peak PeakOf(Arithmetic arithmetic) {
  const bool avx512 = __builtin_cpu_supports("avx512f") != 0;
  const bool avx2 =
      __builtin_cpu_supports("avx2") != 0 && __builtin_cpu_supports("fma") != 0;
  if (arithmetic == Arithmetic::kInt8) {
    if (HasTiles()) {
      return {"amx_int8", &TileLoop};
    }
    if (avx512 && __builtin_cpu_supports("avx512vnni") != 0) {
      return {"avx512_vnni", &VnniLoop};
    }
    return avx2 ? Peak{"avx2", &Avx2Int8Loop} : Peak{"scalar", &ScalarLoop};
  }
  if (avx512) {
    return {"avx512", &Avx512Loop};
  }
  return avx2 ? Peak{"avx2", &Avx2Loop} : Peak{"scalar", &ScalarLoop};
}

#else

Peak PeakOf(Arithmetic) { return {"scalar", &ScalarLoop}; }

#endif

// Eight running sums: enough loads under way to fill the memory's queue.
uint64_t Sum(const uint64_t* words, size_t count) {
  uint64_t sums[8] = {};
  for (size_t i = 0; i + 8 <= count; i += 8) {
    for (size_t lane = 0; lane < 8; ++lane) {
      sums[lane] += words[i + lane];
    }
  }
  uint64_t total = 0;
  for (const uint64_t sum : sums) {
    total += sum;
  }
  return total;
}

}  // namespace

MachineLimits::MachineLimits(int num_threads, Clock* clock)
    : num_threads_(num_threads), clock_(clock), memory_(kWords, 1) {}

template <typename Work>
double MachineLimits::Seconds(const Work& work) const {
  // The threads wait for each other, so that starting them is not timed.
  std::atomic<int> waiting = num_threads_;
  const auto meet = [&waiting] {
    waiting.fetch_sub(1);
    while (waiting.load() > 0) {
      std::this_thread::yield();
    }
  };
  std::vector<absl::Time> begins(static_cast<size_t>(num_threads_));
  std::vector<absl::Time> ends(begins.size());
  std::vector<std::thread> threads;
  for (size_t i = 0; i < begins.size(); ++i) {
    threads.emplace_back([&, i] {
      meet();
      begins[i] = clock_->Now();
      work(i);
      ends[i] = clock_->Now();
    });
  }
  for (std::thread& thread : threads) {
    thread.join();
  }
  return absl::ToDoubleSeconds(*std::max_element(ends.begin(), ends.end()) -
                               *std::min_element(begins.begin(), begins.end()));
}

double MachineLimits::ReadBytesPerSecond() {
  std::atomic<uint64_t> sink = 0;
  const size_t part = kWords / static_cast<size_t>(num_threads_);
  double best = 0;
  for (int pass = 0; pass < kPasses; ++pass) {
    const double seconds =
        Seconds([&](size_t i) { sink += Sum(memory_.data() + i * part, part); });
    const auto bytes =
        static_cast<double>(part * static_cast<size_t>(num_threads_) * sizeof(uint64_t));
    best = std::max(best, bytes / seconds);
  }
  return best;
}

double MachineLimits::MultiplyAddsPerSecond(Arithmetic arithmetic) {
  const Peak peak = PeakOf(arithmetic);
  double best = 0;
  for (int pass = 0; pass < kPasses; ++pass) {
    std::atomic<int64_t> count = 0;
    std::atomic<float> sink = 0;
    const double seconds = Seconds([&](size_t) {
      float mine = 0;
      count += peak.loop(&mine);
      sink.store(mine);
    });
    best = std::max(best, static_cast<double>(count.load()) / seconds);
  }
  return best;
}

std::string_view MachineLimits::InstructionSet(Arithmetic arithmetic) {
  return PeakOf(arithmetic).name;
}

std::string ProcessorName() {
  std::ifstream in("/proc/cpuinfo");
  for (std::string line; std::getline(in, line);) {
    const size_t colon = line.find(": ");
    if (line.starts_with("model name") && colon != std::string::npos) {
      return line.substr(colon + 2);
    }
  }
  return "";
}

}  // namespace tessera::cli
