#include "blob_header.h"

#include <cinttypes>
#include <cstdio>
#include <cstring>

#include "crc32c.h"
#include "row_geometry.h"
#include "row_layout.h"

namespace molkv {
namespace {

constexpr std::array<uint8_t, 8> kMagic = {0x89, 'M', 'O', 'L', 'K', 'V', '\r', '\n'};
constexpr uint64_t kVersionMajor = 1;
constexpr uint64_t kVersionMinor = 2;
constexpr uint64_t kDataAlignment = 16384;
constexpr uint64_t kMaximumDataOffset = 1ULL << 20;
constexpr uint64_t kMaximumRows = 2147483647;
constexpr size_t kFieldsSize = 146;
constexpr size_t kChecksumOffset = kHeaderSize - 4;
constexpr std::array<const char*, 5> kTypeNames = {"NONE", "FLOAT32", "FLOAT16", "INT8", "INT4"};

// A little-endian number, whatever this processor's order.
template <typename Number>
Number Load(const uint8_t* page, size_t offset) {
  Number value = 0;
  for (size_t i = 0; i < sizeof(Number); ++i) {
    value = static_cast<Number>(value | static_cast<Number>(page[offset + i]) << (8 * i));
  }
  return value;
}

std::string HexadecimalNumber(uint32_t value) {
  char text[16];
  std::snprintf(text, sizeof(text), "0x%08" PRIx32, value);
  return text;
}

// What must hold before a single field means anything.
void ValidatePage(const uint8_t* page, size_t size, const std::string& source) {
  if (size < kHeaderSize) {
    throw FormatError(source, "file length", size,
                      "the header alone has " + std::to_string(kHeaderSize));
  }
  // Magic and version come before the checksum: a later version may place it elsewhere.
  if (std::memcmp(page, kMagic.data(), kMagic.size()) != 0) {
    throw FormatError(
        source, "magic", Hexadecimal(page, kMagic.size(), " "),
        "an expert blob starts with " + Hexadecimal(kMagic.data(), kMagic.size(), " "),
        "this is not an expert blob, or its transfer converted line ends");
  }
  const uint64_t major = Load<uint16_t>(page, 8);
  const uint64_t minor = Load<uint16_t>(page, 10);
  if (major != kVersionMajor || minor > kVersionMinor) {
    const std::string own = std::to_string(kVersionMajor) + ".";
    throw FormatError(
        source, "version", std::to_string(major) + "." + std::to_string(minor),
        "this reader reads version " + own + "0 to " + own + std::to_string(kVersionMinor),
        "update molkv, or export again with the version that is installed");
  }
  const uint64_t header_size = Load<uint32_t>(page, 12);
  if (header_size != kHeaderSize) {
    throw FormatError(source, "header_size", header_size, "must be " + std::to_string(kHeaderSize));
  }
  const uint32_t stored = Load<uint32_t>(page, kChecksumOffset);
  const uint32_t computed = Crc32c(page, kChecksumOffset);
  if (stored != computed) {
    throw FormatError(source, "header CRC32C", HexadecimalNumber(stored),
                      "the header's bytes give " + HexadecimalNumber(computed));
  }
  for (size_t position = kFieldsSize; position < kChecksumOffset; ++position) {
    if (page[position] != 0) {
      throw FormatError(source, "reserved byte " + std::to_string(position), page[position],
                        "must be 0 in this version");
    }
  }
}

uint32_t LoadType(const uint8_t* page, size_t offset, const std::string& field,
                  const std::string& source) {
  const uint32_t code = Load<uint16_t>(page, offset);
  if (code >= kTypeNames.size()) {
    std::string rule = "the types are";
    for (size_t known = 0; known < kTypeNames.size(); ++known) {
      rule += (known == 0 ? " " : ", ") + std::to_string(known) + " " + kTypeNames[known];
    }
    throw FormatError(source, field, code, rule);
  }
  return code;
}

void RequireZero(uint64_t value, const std::string& field, const std::string& source) {
  if (value != 0) {
    throw FormatError(source, field, value, "must be 0 in this version");
  }
}

void ValidateRowRange(const BlobHeader& header, const std::string& source) {
  const uint64_t end = header.first_row + header.row_count;
  const std::string vocabulary = "vocabulary_size " + std::to_string(header.vocabulary_size);
  if (end > header.vocabulary_size) {
    throw FormatError(source, "row_count", header.row_count,
                      "first_row " + std::to_string(header.first_row) +
                          " + row_count must be at most " + vocabulary);
  }
  if ((header.first_row == 0) != (header.shard_index == 0)) {
    throw FormatError(source, "first_row", header.first_row,
                      "shard_index is " + std::to_string(header.shard_index) +
                          ": the first shard, and only it, starts at 0");
  }
  if ((end == header.vocabulary_size) != (header.shard_index == header.shard_count - 1)) {
    throw FormatError(source, "row_count", header.row_count,
                      "the last shard, and only it, ends at " + vocabulary + "; this is shard " +
                          std::to_string(header.shard_index + 1) + " of " +
                          std::to_string(header.shard_count) + " and ends at " +
                          std::to_string(end));
  }
}

// A file states the first minor version that has what it holds: older readers take the rest.
uint64_t LeastMinor(const BlobHeader& header) {
  if (header.embedding_dtype != MOLKV_NONE) {
    return 2;
  }
  return header.geometry.value_dtype == MOLKV_INT4 ? 1 : 0;
}

void ValidateFields(const BlobHeader& header, const std::string& source) {
  RequireRange(source, "data_offset", header.data_offset, kHeaderSize, kMaximumDataOffset);
  RequireRange(source, "vocabulary_size", header.vocabulary_size, 1, kMaximumRows);
  RequireRange(source, "first_row", header.first_row, 0, kMaximumRows);
  RequireRange(source, "row_count", header.row_count, 1, kMaximumRows);
  RequireRange(source, "shard_count", header.shard_count, 1, kMaximumShards);
  RequireRange(source, "shard_index", header.shard_index, 0, header.shard_count - 1);
  if (header.data_offset % kDataAlignment != 0) {
    throw FormatError(source, "data_offset", header.data_offset,
                      "must be a multiple of " + std::to_string(kDataAlignment));
  }
  ValidateRowRange(header, source);
  const uint64_t minor = LeastMinor(header);
  if (header.version_minor != minor) {
    throw FormatError(source, "version_minor", header.version_minor,
                      "must be " + std::to_string(minor) + " where value_dtype is " +
                          std::to_string(header.geometry.value_dtype) + " and embedding_dtype " +
                          std::to_string(header.embedding_dtype));
  }
  const RowLayout layout =
      RowLayout::Of(header.geometry, header.embedding_dtype, header.row_stride, source);
  if (header.row_size != layout.row_size) {
    throw FormatError(source, "row_size", header.row_size,
                      "the dimensions and types imply " + std::to_string(layout.row_size));
  }
}

}  // namespace

BlobHeader ParseBlobHeader(const uint8_t* page, size_t size, const std::string& source) {
  ValidatePage(page, size, source);
  BlobHeader header;
  header.version_minor = Load<uint16_t>(page, 10);
  header.data_offset = Load<uint64_t>(page, 16);
  header.row_stride = Load<uint64_t>(page, 24);
  header.row_size = Load<uint64_t>(page, 32);
  header.vocabulary_size = Load<uint64_t>(page, 40);
  header.first_row = Load<uint64_t>(page, 48);
  header.row_count = Load<uint64_t>(page, 56);
  header.shard_index = Load<uint32_t>(page, 64);
  header.shard_count = Load<uint32_t>(page, 68);
  header.geometry.layers = Load<uint32_t>(page, 72);
  header.geometry.experts = Load<uint32_t>(page, 76);
  header.geometry.key_heads = Load<uint32_t>(page, 80);
  header.geometry.key_size = Load<uint32_t>(page, 84);
  header.geometry.value_size = Load<uint32_t>(page, 88);
  RequireZero(Load<uint16_t>(page, 98), "flags", source);
  RequireZero(Load<uint32_t>(page, 108), "reserved field at byte 108", source);
  header.geometry.key_dtype = LoadType(page, 92, "key_dtype", source);
  header.geometry.value_dtype = LoadType(page, 94, "value_dtype", source);
  header.geometry.scale_dtype = LoadType(page, 96, "scale_dtype", source);
  header.geometry.key_group_size = Load<uint32_t>(page, 100);
  header.geometry.value_group_size = Load<uint32_t>(page, 104);
  std::memcpy(header.identity.data(), page + 112, header.identity.size());
  header.embedding_dtype = LoadType(page, 144, "embedding_dtype", source);
  ValidateFields(header, source);
  return header;
}

std::string Hexadecimal(const uint8_t* bytes, size_t size, const std::string& separator) {
  constexpr char kDigits[] = "0123456789abcdef";
  std::string text;
  for (size_t i = 0; i < size; ++i) {
    if (i > 0) {
      text += separator;
    }
    text += kDigits[bytes[i] >> 4];
    text += kDigits[bytes[i] & 0xF];
  }
  return text;
}

}  // namespace molkv
