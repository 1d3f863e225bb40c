// Hands the checksum, which the library keeps to itself, to the tests.

#include "crc32c.h"

extern "C" __attribute__((visibility("default"))) uint32_t test_crc32c(const uint8_t* data,
                                                                       size_t size) {
  return molkv::Crc32c(data, size);
}

extern "C" __attribute__((visibility("default"))) uint32_t test_crc32c_table(const uint8_t* data,
                                                                             size_t size) {
  return ~molkv::Crc32cTable(0xFFFFFFFF, data, size);
}
