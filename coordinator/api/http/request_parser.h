// RequestParser: what Beast makes of the bytes of a request, in the words of the API.
// Internal to the server; brings Beast along.
#ifndef TESSERA_COORDINATOR_API_HTTP_REQUEST_PARSER_H_
#define TESSERA_COORDINATOR_API_HTTP_REQUEST_PARSER_H_

#include <cstddef>
#include <optional>

#include "boost/beast/http/parser.hpp"
#include "boost/beast/http/string_body.hpp"

#include "coordinator/api/errors.h"
#include "coordinator/api/http_message.h"

namespace tessera::coordinator {

using RequestParser = boost::beast::http::request_parser<boost::beast::http::string_body>;

// In the order in which they came.
HttpHeaders CopyHeaders(const boost::beast::http::request_header<>& header);

// The whole message; the parser is of no use afterwards. `keep_alive`: the client wants
// the connection to stay.
HttpRequest TakeRequest(RequestParser* parser, bool* keep_alive);

// What to answer to a header that was read and cannot stand: too many fields, or a
// transfer coding by which nobody can tell where the body ends (RFC 9112, 6.3), which the
// parser takes for no body, and what follows for the next request.
std::optional<ApiError> AnswerToHeader(const RequestParser& parser,
                                       size_t max_header_fields);

// What to answer when reading a request failed; nothing where nobody is left to read it.
std::optional<ApiError> AnswerToReadError(boost::system::error_code error,
                                          size_t max_request_bytes);

}  // namespace tessera::coordinator

#endif  // TESSERA_COORDINATOR_API_HTTP_REQUEST_PARSER_H_
