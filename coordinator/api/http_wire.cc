#include "coordinator/api/http_wire.h"

#include "boost/beast/http/status.hpp"
#include "fmt/format.h"

namespace tessera::coordinator {
namespace {

void AppendHeader(std::string_view name, std::string_view value, std::string* out) {
  *out += name;
  *out += ": ";
  *out += value;
  *out += "\r\n";
}

}  // namespace

std::string ResponseHead(const HttpResponse& response, BodyKind body,
                         const WireOptions& options) {
  const auto reason = boost::beast::http::obsolete_reason(
      static_cast<boost::beast::http::status>(response.status));
  std::string head =
      fmt::format("HTTP/1.{} {} {}\r\n", options.http11 ? 1 : 0, response.status,
                  std::string_view(reason.data(), reason.size()));
  for (const auto& [name, value] : response.headers) {
    AppendHeader(name, value, &head);
  }
  if (response.status != 204) {
    AppendHeader("Content-Type", response.content_type, &head);
    if (body == BodyKind::kWhole) {
      AppendHeader("Content-Length", fmt::format("{}", response.body.size()), &head);
    } else if (options.http11) {
      AppendHeader("Transfer-Encoding", "chunked", &head);
    }
  }
  AppendHeader("Connection", options.keep_alive ? "keep-alive" : "close", &head);
  head += "\r\n";
  return head;
}

std::string BodyChunk(std::string_view data) {
  return fmt::format("{:x}\r\n{}\r\n", data.size(), data);
}

}  // namespace tessera::coordinator
