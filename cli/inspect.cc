// tessera inspect: what a checkpoint folder holds, after checking that it holds all of
// it.
#include <iostream>
#include <string>

#include "absl/status/status.h"
#include "cli/subcommand.h"

#include "common/option_table.h"
#include "common/status.h"
#include "common/status_macros.h"
#include "model/tensors/model_summary.h"

namespace tessera::cli {

absl::Status RunInspect(Arguments arguments) {
  std::string model;
  bool json = false;
  OptionTable table("inspect",
                    "Prints what a checkpoint holds: family, tensors, formats, bytes, "
                    "parameters. Reads config.json and the headers of the weights; with "
                    "config.json alone it prints what such a checkpoint would hold.");
  table.Add("model", &model, "checkpoint folder").Positional("MODEL");
  table.Add("json", &json, "print one JSON object");
  TESSERA_ASSIGN_OR_RETURN(const bool go_on, ParseOptions(&table, arguments));
  if (!go_on) {
    return absl::OkStatus();
  }
  if (model.empty()) {
    return InvalidArgumentF("no checkpoint folder, expected one: tessera inspect MODEL");
  }
  TESSERA_ASSIGN_OR_RETURN(const model::ModelSummary summary,
                           model::SummarizeDirectory(model));
  std::cout << (json ? model::FormatSummaryJson(summary) : model::FormatSummary(summary))
            << std::flush;
  return absl::OkStatus();
}

}  // namespace tessera::cli
