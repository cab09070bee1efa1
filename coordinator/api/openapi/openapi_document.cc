#include "coordinator/api/openapi/openapi_document.h"

#include <utility>

#include "fmt/format.h"
#include "nlohmann/json.hpp"

#include "common/check.h"
#include "coordinator/api/openapi/openapi_fragments.h"
#include "coordinator/api/unsupported_routes.h"

namespace tessera::coordinator {
namespace {

using nlohmann::ordered_json;

// Adds the paths and the components of `fragment`; a name that is there already is a
// mistake of the files.
void Merge(ordered_json fragment, ordered_json* document) {
  const auto add = [](ordered_json from, ordered_json* to) {
    for (auto& [name, value] : from.items()) {
      TESSERA_CHECK(!to->contains(name));
      (*to)[name] = std::move(value);
    }
  };
  add(std::move(fragment["paths"]), &(*document)["paths"]);
  for (auto& [kind, entries] : fragment["components"].items()) {
    add(std::move(entries), &(*document)["components"][kind]);
  }
}

// Replaces each operation's "x-errors" by the responses that it stands for; an
// operation's own responses stay.
void ExpandErrors(ordered_json* document) {
  const ordered_json sets = std::move((*document)["x-error-sets"]);
  document->erase("x-error-sets");
  for (auto& [path, methods] : (*document)["paths"].items()) {
    for (auto& [method, operation] : methods.items()) {
      const ordered_json& errors = sets.at(operation["x-errors"].get<std::string>());
      operation.erase("x-errors");
      for (const auto& [status, response] : errors.items()) {
        if (!operation["responses"].contains(status)) {
          operation["responses"][status] = response;
        }
      }
    }
  }
}

// One refused operation; what lies below its path is refused as well.
ordered_json RefusedOperation(const UnsupportedRoute& route, std::string_view method) {
  return {{"tags", {"refused"}},
          {"operationId", fmt::format("refused {} {}", method, route.path)},
          {"summary", fmt::format("Refused: this server {}.", route.reason)},
          {"deprecated", true},
          {"responses",
           {{"401", {{"$ref", "#/components/responses/Unauthorized"}}},
            {"404", {{"$ref", "#/components/responses/NotFound"}}}}}};
}

void AddRefused(ordered_json* paths) {
  for (const UnsupportedRoute& route : UnsupportedRoutes()) {
    // Some paths are routes themselves, and only what lies below them is refused.
    const bool served = paths->contains(route.path);
    ordered_json item = {{"get", RefusedOperation(route, "get")},
                         {"post", RefusedOperation(route, "post")}};
    if (served) {
      item["parameters"] = {{{"name", "rest"},
                             {"in", "path"},
                             {"required", true},
                             {"schema", {{"type", "string"}, {"minLength", 1}}}}};
    }
    (*paths)[std::string(route.path) + (served ? "/{rest}" : "")] = std::move(item);
  }
}

}  // namespace

std::string OpenApiDocument(std::string_view version) {
  ordered_json document;
  for (const EmbeddedFile& file : OpenApiFragments()) {
    ordered_json fragment =
        ordered_json::parse(file.text, nullptr, /*allow_exceptions=*/false);
    TESSERA_CHECK(!fragment.is_discarded());
    if (document.is_null()) {
      document = std::move(fragment);  // the first is base.json
    } else {
      Merge(std::move(fragment), &document);
    }
  }
  document["info"]["version"] = version;
  ExpandErrors(&document);
  AddRefused(&document["paths"]);
  return document.dump();
}

}  // namespace tessera::coordinator
