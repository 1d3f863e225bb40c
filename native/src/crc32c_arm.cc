// CRC-32C with the instructions of Armv8. Compiled with +crc; empty elsewhere.

#include "crc32c.h"

#if defined(__aarch64__) && defined(__ARM_FEATURE_CRC32)

#include <arm_acle.h>

#include "crc32c_streams.h"

namespace molkv {
namespace {

struct Step {
  static uint32_t Word(uint32_t state, uint64_t word) { return __crc32cd(state, word); }
  static uint32_t Byte(uint32_t state, uint8_t byte) { return __crc32cb(state, byte); }
};

}  // namespace

Crc32cUpdate Crc32cArm() { return &Crc32cStreams<Step>; }

}  // namespace molkv

#else

namespace molkv {

Crc32cUpdate Crc32cArm() { return nullptr; }

}  // namespace molkv

#endif
