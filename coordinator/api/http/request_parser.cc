#include "coordinator/api/http/request_parser.h"

#include <iterator>
#include <string>
#include <utility>

#include "boost/beast/http/error.hpp"

namespace tessera::coordinator {

namespace http = boost::beast::http;

HttpHeaders CopyHeaders(const http::request_header<>& header) {
  HttpHeaders headers;
  for (const auto& field : header) {
    headers.emplace_back(std::string(field.name_string()), std::string(field.value()));
  }
  return headers;
}

HttpRequest TakeRequest(RequestParser* parser, bool* keep_alive) {
  auto message = parser->release();
  *keep_alive = message.keep_alive();
  HttpRequest request;
  request.method = std::string(message.method_string());
  request.target = std::string(message.target());
  request.headers = CopyHeaders(message);
  request.body = std::move(message.body());
  return request;
}

std::optional<ApiError> AnswerToHeader(const RequestParser& parser,
                                       size_t max_header_fields) {
  const auto& header = parser.get();
  if (static_cast<size_t>(std::distance(header.begin(), header.end())) >
      max_header_fields) {
    return HeaderTooLargeError();
  }
  if (header.count(http::field::transfer_encoding) > 0 &&
      (!parser.chunked() || header.version() < 11)) {
    return MalformedHttpError();
  }
  return std::nullopt;
}

std::optional<ApiError> AnswerToReadError(boost::system::error_code error,
                                          size_t max_request_bytes) {
  if (error == http::error::body_limit) {
    return TooLargeError(max_request_bytes);
  }
  if (error == http::error::header_limit || error == http::error::buffer_overflow) {
    return HeaderTooLargeError();
  }
  const bool of_http =
      error.category() == http::make_error_code(http::error::bad_method).category();
  if (!of_http || error == http::error::end_of_stream ||
      error == http::error::partial_message) {
    return std::nullopt;  // the client left, or the network failed
  }
  return MalformedHttpError();
}

}  // namespace tessera::coordinator
