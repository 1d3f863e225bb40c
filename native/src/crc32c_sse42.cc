// CRC-32C with the instructions of SSE 4.2. Compiled with -msse4.2; empty elsewhere.

#include "crc32c.h"

#if defined(__x86_64__) && defined(__SSE4_2__)

#include <nmmintrin.h>

#include "crc32c_streams.h"

namespace molkv {
namespace {

struct Step {
  static uint32_t Word(uint32_t state, uint64_t word) {
    return static_cast<uint32_t>(_mm_crc32_u64(state, word));
  }
  static uint32_t Byte(uint32_t state, uint8_t byte) { return _mm_crc32_u8(state, byte); }
};

}  // namespace

Crc32cUpdate Crc32cSse42() { return &Crc32cStreams<Step>; }

}  // namespace molkv

#else

namespace molkv {

Crc32cUpdate Crc32cSse42() { return nullptr; }

}  // namespace molkv

#endif
