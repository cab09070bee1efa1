// Manifests between memory and wire; the byte order of row ids. Shared by the client and
// the service.
#ifndef TESSERA_ENGRAM_STORE_TABLE_MANIFEST_CONVERT_H_
#define TESSERA_ENGRAM_STORE_TABLE_MANIFEST_CONVERT_H_

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

#include "engram_store/table/engram_manifest.h"

namespace tessera::engram::v1 {
class Manifest;
}  // namespace tessera::engram::v1

namespace tessera::engram_store {

void ManifestToProto(const EngramManifest& manifest, engram::v1::Manifest* proto);

// kDataLoss for a table whose layout no table may have, or more tables than 256.
absl::StatusOr<EngramManifest> ManifestFromProto(const engram::v1::Manifest& proto);

// uint32 little-endian, as LookupRequest.row_ids has them.
std::string RowIdsToBytes(std::span<const uint32_t> row_ids);

// kInvalidArgument unless `bytes` holds whole ids.
absl::Status RowIdsFromBytes(std::string_view bytes, std::vector<uint32_t>* row_ids);

}  // namespace tessera::engram_store

#endif  // TESSERA_ENGRAM_STORE_TABLE_MANIFEST_CONVERT_H_
