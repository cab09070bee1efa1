// Where the values of a JSON text stand in it. Parsed JSON forgets the order of members
// and the spelling of numbers; what a prompt shows to the model must keep both, so that
// it is what the client wrote and the same prefix every time.
#ifndef TESSERA_COORDINATOR_API_JSON_JSON_SOURCE_H_
#define TESSERA_COORDINATOR_API_JSON_JSON_SOURCE_H_

#include <string_view>
#include <vector>

namespace tessera::coordinator {

// All of them take the text of a value that a parser accepted before; other text gives
// some view into it, never one beyond its end. Views live as long as the text. Time is
// linear in the text.

// The value under `key` of the object `object`: of equal keys the last, as the parser
// takes it. Empty: no such key, or no object.
std::string_view JsonMember(std::string_view object, std::string_view key);

// The values of the array `array`, in their order; none where it is no array.
std::vector<std::string_view> JsonElements(std::string_view array);

}  // namespace tessera::coordinator

#endif  // TESSERA_COORDINATOR_API_JSON_JSON_SOURCE_H_
