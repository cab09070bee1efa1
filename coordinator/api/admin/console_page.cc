#include "coordinator/api/admin/console_page.h"

#include <algorithm>
#include <array>

#include "fmt/format.h"

#include "coordinator/api/errors.h"
#include "coordinator/console/web/console_files.h"
#include "openssl/sha.h"

namespace tessera::coordinator {
namespace {

constexpr std::string_view kBase = "/console/";
constexpr std::string_view kIndex = "index.html";

// Trusted types make the browser refuse innerHTML and its like: what a model writes can
// never become markup, whatever mistake a module makes.
constexpr std::string_view kPolicy =
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'; trusted-types 'none'";

std::string ContentType(std::string_view name) {
  const std::string_view extension = name.substr(name.rfind('.') + 1);
  return extension == "html"  ? "text/html; charset=utf-8"
         : extension == "css" ? "text/css; charset=utf-8"
         : extension == "js"  ? "text/javascript; charset=utf-8"
         : extension == "svg" ? "image/svg+xml"
                              : "application/octet-stream";
}

// Of the content, so that a page of another build is never mixed with this one's.
std::string EtagOf(std::string_view text) {
  std::array<unsigned char, SHA256_DIGEST_LENGTH> digest;
  SHA256(reinterpret_cast<const unsigned char*>(text.data()), text.size(), digest.data());
  std::string etag = "\"";
  for (size_t i = 0; i < 12; ++i) {
    etag += fmt::format("{:02x}", digest[i]);
  }
  return etag + "\"";
}

HttpHeaders SafetyHeaders() {
  return {{"Content-Security-Policy", std::string(kPolicy)},
          {"X-Content-Type-Options", "nosniff"},
          {"X-Frame-Options", "DENY"},
          {"Referrer-Policy", "no-referrer"},
          {"Cross-Origin-Opener-Policy", "same-origin"},
          {"Cross-Origin-Resource-Policy", "same-origin"},
          {"Permissions-Policy", "camera=(), geolocation=(), microphone=()"}};
}

}  // namespace

ConsolePage::ConsolePage() {
  for (const EmbeddedFile& file : ConsoleFiles()) {
    files_.push_back({.name = file.name,
                      .text = file.text,
                      .content_type = ContentType(file.name),
                      .etag = EtagOf(file.text)});
  }
}

bool ConsolePage::Owns(std::string_view path) {
  return path == "/" || path == "/console" || path.starts_with(kBase);
}

HttpResponse ConsolePage::Answer(const HttpRequest& request,
                                 std::string_view path) const {
  if (request.method != "GET" && request.method != "HEAD") {
    HttpResponse response = ErrorResponse(MethodNotAllowedError());
    response.headers.emplace_back("Allow", "GET, HEAD");
    return response;
  }
  if (!path.starts_with(kBase)) {
    HttpResponse response;
    response.status = 307;
    response.content_type = "text/plain; charset=utf-8";
    response.headers.emplace_back("Location", std::string(kBase));
    response.body = "the console is at /console/\n";
    return response;
  }
  std::string_view name = path.substr(kBase.size());
  name = name.empty() ? kIndex : name;
  const auto file = std::find_if(files_.begin(), files_.end(),
                                 [&](const File& entry) { return entry.name == name; });
  if (file == files_.end()) {
    return ErrorResponse(RouteNotFoundError());
  }
  HttpResponse response;
  response.content_type = file->content_type;
  response.headers = SafetyHeaders();
  response.headers.emplace_back("ETag", file->etag);
  // Asked for each time, answered with 304: an upgrade shows at the next reload.
  response.headers.emplace_back("Cache-Control", "no-cache");
  if (FindHeader(request.headers, "if-none-match") == file->etag) {
    response.status = 304;
  } else {
    response.body = file->text;
  }
  return response;
}

}  // namespace tessera::coordinator
