// CRC-32C (Castagnoli), the checksum of headers and rows (docs/format.md).

#ifndef MOLKV_SRC_CRC32C_H_
#define MOLKV_SRC_CRC32C_H_

#include <cstddef>
#include <cstdint>

namespace molkv {

// The checksum of some bytes, by the fastest way that this processor has.
uint32_t Crc32c(const void* data, size_t size);

// The name of that way: "table", "sse4.2" or "armv8".
const char* Crc32cName();

// Continues a checksum over more bytes; `state` is the inverted checksum of the bytes before.
using Crc32cUpdate = uint32_t (*)(uint32_t state, const uint8_t* data, size_t size);

// Works everywhere.
uint32_t Crc32cTable(uint32_t state, const uint8_t* data, size_t size);

// NULL if the file was not compiled for these instructions. Whether the processor has them is for
// the caller to find out.
Crc32cUpdate Crc32cSse42();
Crc32cUpdate Crc32cArm();

// Checksum instructions take three cycles but can start in every one, so long data is cut into
// three streams of this many bytes each.
inline constexpr size_t kCrc32cStream = 1024;

// The state after kCrc32cStream more bytes of zeros: what joins one stream to the next.
uint32_t Crc32cSkipStream(uint32_t state);

}  // namespace molkv

#endif  // MOLKV_SRC_CRC32C_H_
