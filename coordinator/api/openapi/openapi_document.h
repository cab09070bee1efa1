// The OpenAPI 3.1 document that /openapi.json serves: the files of this folder, one per
// dialect, put together. A path that lacks here, or is too much, fails
// openapi_document_test; a status or a body that differs from it fails
// tests/integration/openapi_test.py.
#ifndef TESSERA_COORDINATOR_API_OPENAPI_OPENAPI_DOCUMENT_H_
#define TESSERA_COORDINATOR_API_OPENAPI_OPENAPI_DOCUMENT_H_

#include <string>
#include <string_view>

namespace tessera::coordinator {

// The document as JSON text. In the files an operation names its usual errors in one
// word, "x-errors": a key of "x-error-sets" of base.json, whose responses take its place.
// The routes that the server refuses are added from their table.
std::string OpenApiDocument(std::string_view version);

}  // namespace tessera::coordinator

#endif  // TESSERA_COORDINATOR_API_OPENAPI_OPENAPI_DOCUMENT_H_
