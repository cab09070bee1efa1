// ConsolePage: serves the files of the console below /console/, with the headers that
// keep a page safe: nothing from elsewhere, no inline script or style, no framing. The
// files hold no secret, so they need no key; what the page reads does.
#ifndef TESSERA_COORDINATOR_API_ADMIN_CONSOLE_PAGE_H_
#define TESSERA_COORDINATOR_API_ADMIN_CONSOLE_PAGE_H_

#include <string>
#include <string_view>
#include <vector>

#include "coordinator/api/http_message.h"

namespace tessera::coordinator {

// Immutable, so thread-safe.
class ConsolePage {
 public:
  ConsolePage();

  // Whether `path` belongs to it: "/", "/console" and what lies below.
  static bool Owns(std::string_view path);

  // The file; a redirect to /console/ for "/" and "/console"; 304 where the client has
  // the file already; 404 for a name that is none; 405 for other methods than GET and
  // HEAD.
  HttpResponse Answer(const HttpRequest& request, std::string_view path) const;

 private:
  struct File {
    std::string_view name;
    std::string_view text;
    std::string content_type;
    std::string etag;
  };

  std::vector<File> files_;
};

}  // namespace tessera::coordinator

#endif  // TESSERA_COORDINATOR_API_ADMIN_CONSOLE_PAGE_H_
