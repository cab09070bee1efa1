#include "coordinator/api/openapi/openapi_document.h"

#include <algorithm>
#include <cctype>
#include <set>
#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"

#include "coordinator/api/admin/admin_door.h"
#include "coordinator/api/api_service.h"
#include "coordinator/api/unsupported_routes.h"

namespace tessera::coordinator {
namespace {

using nlohmann::json;

json Document() { return json::parse(OpenApiDocument("1.2.3")); }

std::string Lower(std::string_view text) {
  std::string out(text);
  std::transform(out.begin(), out.end(), out.begin(),
                 [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  return out;
}

bool IsRefused(const json& operation) { return operation["tags"] == json({"refused"}); }

bool IsAdmin(const json& operation) { return operation["tags"] == json({"admin"}); }

// "get /path" of each operation that the route table has.
std::set<std::string> Described(const json& document) {
  std::set<std::string> names;
  for (const auto& [path, methods] : document["paths"].items()) {
    for (const auto& [method, operation] : methods.items()) {
      if (method != "parameters" && !IsRefused(operation) && !IsAdmin(operation)) {
        names.insert(method + " " + path);
      }
    }
  }
  return names;
}

// Every "$ref" below `value`.
void CollectReferences(const json& value, std::set<std::string>* out) {
  if (value.is_object() && value.contains("$ref")) {
    out->insert(value["$ref"].get<std::string>());
  }
  if (value.is_structured()) {
    for (const json& child : value) {
      CollectReferences(child, out);
    }
  }
}

TEST(OpenApiDocument, DescribesEveryRouteAndNoOther) {
  std::set<std::string> served;
  for (const ApiService::RouteName& route : ApiService::Routes()) {
    served.insert(Lower(route.method) + " " + std::string(route.pattern));
  }
  EXPECT_EQ(Described(Document()), served)
      << "describe a new route in coordinator/api/openapi/";
}

TEST(OpenApiDocument, DescribesEveryRouteOfTheAdminDoor) {
  const json document = Document();
  std::set<std::string> described;
  for (const auto& [path, methods] : document["paths"].items()) {
    if (path.starts_with("/admin/")) {
      described.insert(path);
    }
  }
  const auto routes = AdminDoor::Routes();
  EXPECT_EQ(described, std::set<std::string>(routes.begin(), routes.end()));
}

TEST(OpenApiDocument, DescribesEveryRefusedRoute) {
  const json document = Document();
  for (const UnsupportedRoute& route : UnsupportedRoutes()) {
    const std::string path(route.path);
    const bool served = document["paths"].contains(path) &&
                        document["paths"][path].contains("post") &&
                        !IsRefused(document["paths"][path]["post"]);
    const json& item = document["paths"].at(served ? path + "/{rest}" : path);
    EXPECT_TRUE(IsRefused(item.at("post"))) << path;
    EXPECT_TRUE(item["post"]["responses"].contains("404")) << path;
  }
}

TEST(OpenApiDocument, EveryReferenceLeadsSomewhere) {
  const json document = Document();
  std::set<std::string> references;
  CollectReferences(document, &references);
  EXPECT_GT(references.size(), 20u);
  for (const std::string& reference : references) {
    ASSERT_TRUE(reference.starts_with("#/")) << reference;
    EXPECT_TRUE(document.contains(json::json_pointer(reference.substr(1)))) << reference;
  }
}

TEST(OpenApiDocument, EverySchemaIsUsed) {
  const json document = Document();
  std::set<std::string> references;
  CollectReferences(document, &references);
  for (const auto& [name, schema] : document["components"]["schemas"].items()) {
    EXPECT_TRUE(references.contains("#/components/schemas/" + name)) << name;
  }
}

TEST(OpenApiDocument, OperationsHaveNamesAndErrors) {
  const json document = Document();
  EXPECT_EQ(document["info"]["version"], "1.2.3");
  std::set<std::string> ids;
  for (const auto& [path, methods] : document["paths"].items()) {
    for (const auto& [method, operation] : methods.items()) {
      if (method == "parameters") {
        continue;
      }
      EXPECT_TRUE(ids.insert(operation["operationId"].get<std::string>()).second) << path;
      EXPECT_TRUE(operation["responses"].contains("401")) << path;
      EXPECT_FALSE(operation.contains("x-errors")) << path;
    }
  }
}

}  // namespace
}  // namespace tessera::coordinator
