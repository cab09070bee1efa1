#include "coordinator/service/process_metrics.h"

#include <filesystem>
#include <fstream>
#include <iterator>
#include <sstream>
#include <string>
#include <utility>

#include <sys/resource.h>
#include <unistd.h>

namespace tessera::coordinator {
namespace {

void Add(std::string name, std::string help, prometheus::MetricType type, double value,
         std::vector<prometheus::MetricFamily>* out) {
  prometheus::MetricFamily family;
  family.name = std::move(name);
  family.help = std::move(help);
  family.type = type;
  prometheus::ClientMetric metric;
  if (type == prometheus::MetricType::Counter) {
    metric.counter.value = value;
  } else {
    metric.gauge.value = value;
  }
  family.metric.push_back(std::move(metric));
  out->push_back(std::move(family));
}

// Fields of /proc/self/stat from the third on (proc(5)); the second, the name, may hold
// spaces.
std::vector<double> StatFields() {
  std::ifstream file("/proc/self/stat");
  std::string text((std::istreambuf_iterator<char>(file)),
                   std::istreambuf_iterator<char>());
  const size_t after_name = text.rfind(')');
  std::vector<double> fields;
  if (after_name == std::string::npos) {
    return fields;
  }
  std::istringstream rest(text.substr(after_name + 1));
  std::string state;
  rest >> state;
  fields.push_back(0);
  for (double value = 0; rest >> value;) {
    fields.push_back(value);
  }
  return fields;
}

// Seconds since 1970 at which the machine started.
double BootTime() {
  std::ifstream file("/proc/stat");
  std::string word;
  while (file >> word) {
    if (word == "btime") {
      double seconds = 0;
      file >> seconds;
      return seconds;
    }
  }
  return 0;
}

}  // namespace

std::vector<prometheus::MetricFamily> CollectProcess() {
  using prometheus::MetricType;
  std::vector<prometheus::MetricFamily> out;
  const std::vector<double> stat = StatFields();
  // Index 0 is field 3: utime 14, stime 15, threads 20, start time 22, vsize 23, rss 24.
  constexpr size_t kRss = 24 - 3;
  const double ticks = static_cast<double>(sysconf(_SC_CLK_TCK));
  if (stat.size() > kRss) {
    Add("process_cpu_seconds_total", "User and system CPU time spent.",
        MetricType::Counter, (stat[14 - 3] + stat[15 - 3]) / ticks, &out);
    Add("process_threads", "Threads.", MetricType::Gauge, stat[20 - 3], &out);
    Add("process_start_time_seconds", "Start time since 1970.", MetricType::Gauge,
        BootTime() + stat[22 - 3] / ticks, &out);
    Add("process_virtual_memory_bytes", "Virtual memory size.", MetricType::Gauge,
        stat[23 - 3], &out);
    Add("process_resident_memory_bytes", "Resident memory size.", MetricType::Gauge,
        stat[kRss] * static_cast<double>(sysconf(_SC_PAGESIZE)), &out);
  }
  std::error_code error;
  const std::filesystem::directory_iterator open_files("/proc/self/fd", error);
  if (!error) {
    const auto count = std::distance(begin(open_files), end(open_files));
    Add("process_open_fds", "Open file descriptors.", MetricType::Gauge,
        static_cast<double>(count), &out);
  }
  rlimit limit = {};
  if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
    Add("process_max_fds", "Most file descriptors that may be open.", MetricType::Gauge,
        static_cast<double>(limit.rlim_cur), &out);
  }
  return out;
}

}  // namespace tessera::coordinator
