// The header page of an expert blob (docs/format.md, "Header").

#ifndef MOLKV_SRC_BLOB_HEADER_H_
#define MOLKV_SRC_BLOB_HEADER_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>

#include "molkv/molkv.h"

namespace molkv {

inline constexpr size_t kHeaderSize = 16384;
inline constexpr uint64_t kMaximumShards = 99999;

// What the header page of one file states.
struct BlobHeader {
  molkv_geometry geometry{};
  uint32_t embedding_dtype = 0;  // molkv_data_type; MOLKV_NONE: rows carry no embedding
  uint32_t version_minor = 0;
  uint64_t vocabulary_size = 0;  // rows over all shards
  uint64_t row_size = 0;         // bytes of a row that carry data, its CRC32C included
  uint64_t row_stride = 0;       // bytes from one row to the next
  uint64_t first_row = 0;        // token id of this file's first row
  uint64_t row_count = 0;        // rows in this file
  uint32_t shard_index = 0;
  uint32_t shard_count = 0;
  uint64_t data_offset = 0;  // byte position of the first row
  std::array<uint8_t, 32> identity{};

  // Bytes of the whole file; below 2^58 for a parsed header.
  uint64_t FileSize() const { return data_offset + row_count * row_stride; }
};

// Reads the first bytes of a file and checks every rule that can be checked without the file's
// length, in the order that docs/format.md states. Nothing is allocated but messages and the list
// of a row's sections. `source` is the file's name, for messages.
BlobHeader ParseBlobHeader(const uint8_t* page, size_t size, const std::string& source);

// Bytes as hexadecimal digits, with a separator between them.
std::string Hexadecimal(const uint8_t* bytes, size_t size, const std::string& separator);

}  // namespace molkv

#endif  // MOLKV_SRC_BLOB_HEADER_H_
