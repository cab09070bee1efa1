// The binary `tessera`: the table of subcommands.
#include <algorithm>
#include <array>
#include <iostream>
#include <string>
#include <vector>

#include "cli/subcommand.h"

namespace {

using tessera::cli::Subcommand;

constexpr std::array kSubcommands = {
    Subcommand{"serve", "Serves a model on this machine.", &tessera::cli::RunServe},
    Subcommand{"coordinator", "Serves the API for workers that register with it.",
               &tessera::cli::RunCoordinator},
    Subcommand{"worker", "Runs one rank of a group.", &tessera::cli::RunWorker},
    Subcommand{"engram", "Serves one shard of the Engram tables.",
               &tessera::cli::RunEngram},
    Subcommand{"chat", "Talks to a running server.", &tessera::cli::RunChat},
    Subcommand{"bench", "Measures a server, or a model on this machine.",
               &tessera::cli::RunBench},
    Subcommand{"key", "Makes an API key and the line that admits it.",
               &tessera::cli::RunKey},
    Subcommand{"inspect", "Prints what a checkpoint holds.", &tessera::cli::RunInspect},
    Subcommand{"trace", "Writes the intermediates of one prompt.",
               &tessera::cli::RunTrace},
};

}  // namespace

int main(int argc, char** argv) {
  const std::vector<std::string> arguments(argv + std::min(argc, 1), argv + argc);
  return tessera::cli::Dispatch(kSubcommands, arguments, std::cout, std::cerr);
}
