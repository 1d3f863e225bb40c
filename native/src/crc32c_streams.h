// The part that all checksum instructions share. Included by their files only.

#ifndef MOLKV_SRC_CRC32C_STREAMS_H_
#define MOLKV_SRC_CRC32C_STREAMS_H_

#include <cstddef>
#include <cstdint>
#include <cstring>

#include "crc32c.h"

namespace molkv {

// `Step` must be a type of an anonymous namespace: each file then keeps an instantiation of its
// own, and the linker cannot put one file's instructions into another's code.
template <typename Step>
uint32_t Crc32cStreams(uint32_t state, const uint8_t* data, size_t size) {
  const auto word = [](const uint8_t* from) {
    uint64_t value;
    std::memcpy(&value, from, sizeof(value));
    return value;
  };
  for (; size >= 3 * kCrc32cStream; data += 3 * kCrc32cStream, size -= 3 * kCrc32cStream) {
    uint32_t second = 0;
    uint32_t third = 0;
    for (size_t i = 0; i < kCrc32cStream; i += sizeof(uint64_t)) {
      state = Step::Word(state, word(data + i));
      second = Step::Word(second, word(data + kCrc32cStream + i));
      third = Step::Word(third, word(data + 2 * kCrc32cStream + i));
    }
    state = Crc32cSkipStream(state) ^ second;
    state = Crc32cSkipStream(state) ^ third;
  }
  for (; size >= sizeof(uint64_t); data += sizeof(uint64_t), size -= sizeof(uint64_t)) {
    state = Step::Word(state, word(data));
  }
  for (; size > 0; ++data, --size) {
    state = Step::Byte(state, *data);
  }
  return state;
}

}  // namespace molkv

#endif  // MOLKV_SRC_CRC32C_STREAMS_H_
