// What one expert row holds (docs/format.md, "Data types" and "Limits").

#ifndef MOLKV_SRC_ROW_GEOMETRY_H_
#define MOLKV_SRC_ROW_GEOMETRY_H_

#include <cstdint>
#include <string>

#include "error.h"
#include "molkv/molkv.h"

namespace molkv {

inline constexpr char kDamagedFile[] =
    "the file is damaged or was not written by molkv: copy it again or export again";

// The one shape of every format message: file, field, value, rule, fix.
Error FormatError(const std::string& source, const std::string& field, const std::string& value,
                  const std::string& rule, const std::string& fix = kDamagedFile);
Error FormatError(const std::string& source, const std::string& field, uint64_t value,
                  const std::string& rule, const std::string& fix = kDamagedFile);

// Throws unless least <= value <= most.
void RequireRange(const std::string& source, const std::string& field, uint64_t value,
                  uint64_t least, uint64_t most);

// Key elements of one expert, G * dk. The fields must be within their limits.
inline uint64_t KeyWidth(const molkv_geometry& geometry) {
  return static_cast<uint64_t>(geometry.key_heads) * geometry.key_size;
}

// Checks every rule that concerns a row. After that no product of a layout reaches 2^46.
void ValidateGeometry(const molkv_geometry& geometry, const std::string& source);

// Bytes of some elements of one type, which fill whole bytes; 0 for MOLKV_NONE.
uint64_t DataBytes(uint32_t dtype, uint64_t elements);

}  // namespace molkv

#endif  // MOLKV_SRC_ROW_GEOMETRY_H_
