// What the fuzz targets share: taking an input apart, and ending the program where a promise does
// not hold.

#ifndef MOLKV_FUZZ_FUZZ_INPUT_H_
#define MOLKV_FUZZ_FUZZ_INPUT_H_

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <vector>

#include "blob_header.h"
#include "crc32c.h"
#include "utf8.h"

namespace molkv::fuzz {

// Ends the program, which libFuzzer reports with the input that led here.
inline void Promise(bool holds, const char* what) {
  if (!holds) {
    std::fprintf(stderr, "broken promise: %s\n", what);
    std::abort();
  }
}

// Bytes of the header page that carry fields; all others are zero.
inline constexpr size_t kFieldsSize = 146;

// Little-endian, as the format wants it.
inline void PutChecksum(uint32_t checksum, uint8_t* bytes) {
  for (int i = 0; i < 4; ++i) bytes[i] = static_cast<uint8_t>(checksum >> (8 * i));
}

// A header page with these fields, as many as there are, and the right checksum, which chance would
// never find.
inline std::vector<uint8_t> SealedPage(const uint8_t* fields, size_t size) {
  std::vector<uint8_t> page(kHeaderSize);
  const size_t most = page.size() - sizeof(uint32_t);
  std::copy_n(fields, std::min(size, most), page.begin());
  PutChecksum(Crc32c(page.data(), most), page.data() + most);
  return page;
}

// Every failure has a status and a message that ends.
inline void CheckFailure(molkv_status status, const molkv_error& error) {
  Promise(error.status == status, "the error has the status that was returned");
  const size_t length = ::strnlen(error.message, sizeof(error.message));
  Promise(length > 0 && length < sizeof(error.message), "the error has a message that ends");
  Promise(ValidUtf8Prefix({error.message, length}) == length, "the message is UTF-8");
}

}  // namespace molkv::fuzz

#endif  // MOLKV_FUZZ_FUZZ_INPUT_H_
