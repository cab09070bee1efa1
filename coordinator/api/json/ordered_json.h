// A JSON text with the members of its objects in the order of the text, in time linear in
// it. The library's own reader of such documents looks through all members of an object
// for each new one, which a body with a hundred thousand of them turns into seconds.
#ifndef TESSERA_COORDINATOR_API_JSON_ORDERED_JSON_H_
#define TESSERA_COORDINATOR_API_JSON_ORDERED_JSON_H_

#include <string_view>

#include "nlohmann/json_fwd.hpp"

namespace tessera::coordinator {

// Of equal keys in one object the last value counts, at the place of the first. Null: the
// text is not JSON. The depth of `text` must have been checked.
nlohmann::ordered_json ParseOrderedJson(std::string_view text);

}  // namespace tessera::coordinator

#endif  // TESSERA_COORDINATOR_API_JSON_ORDERED_JSON_H_
