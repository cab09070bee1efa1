// NodeFolder: a made-up /sys/devices/system/node for tests.
#ifndef TESSERA_TESTS_TESTING_NODE_FOLDER_H_
#define TESSERA_TESTS_TESTING_NODE_FOLDER_H_

#include <filesystem>
#include <fstream>
#include <string>
#include <utility>
#include <vector>

#include "gtest/gtest.h"

namespace tessera::testing {

// Goes with the object.
class NodeFolder {
 public:
  // Files as the kernel writes them, from pairs of node and cpulist.
  explicit NodeFolder(const std::string& online,
                      const std::vector<std::pair<int, std::string>>& nodes) {
    Write("online", online + "\n");
    for (const auto& [id, cpus] : nodes) {
      Write("node" + std::to_string(id) + "/cpulist", cpus + "\n");
    }
  }
  NodeFolder(const NodeFolder&) = delete;
  NodeFolder& operator=(const NodeFolder&) = delete;
  ~NodeFolder() { std::filesystem::remove_all(path_); }

  void Write(const std::string& name, const std::string& text) const {
    const std::filesystem::path file = path_ + "/" + name;
    std::filesystem::create_directories(file.parent_path());
    std::ofstream(file, std::ios::binary) << text;
  }

  const std::string& path() const { return path_; }

 private:
  const std::string path_ =
      ::testing::TempDir() + "/nodes_" +
      ::testing::UnitTest::GetInstance()->current_test_info()->test_suite_name() + "_" +
      ::testing::UnitTest::GetInstance()->current_test_info()->name();
};

}  // namespace tessera::testing

#endif  // TESSERA_TESTS_TESTING_NODE_FOLDER_H_
