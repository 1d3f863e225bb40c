#include "shard.h"

#include <fcntl.h>
#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <utility>

#include "aligned_buffer.h"
#include "error.h"
#include "row_geometry.h"
#include "row_layout.h"

namespace molkv {
namespace {

// The letter that `ls -l` shows for a file's type.
char TypeLetter(mode_t mode) {
  switch (mode & S_IFMT) {
    case S_IFDIR:
      return 'd';
    case S_IFIFO:
      return 'p';
    case S_IFCHR:
      return 'c';
    case S_IFBLK:
      return 'b';
    case S_IFSOCK:
      return 's';
    case S_IFREG:
      return '-';
    default:
      return '?';
  }
}

// The length of a regular file; anything else is refused.
uint64_t RegularFileSize(const File& file, const std::string& name) {
  struct stat status{};
  if (::fstat(file.descriptor(), &status) != 0) {
    throw Error(MOLKV_IO, name + ": the descriptor cannot be used: " + SystemMessage(errno) +
                              " (pass an open file)");
  }
  if (!S_ISREG(status.st_mode)) {
    throw FormatError(name, "file type", std::string("'") + TypeLetter(status.st_mode) + "'",
                      "must be a regular file ('-'), which can be read at any position",
                      "pass the blob file itself");
  }
  return static_cast<uint64_t>(status.st_size);
}

// At most 1 MiB: the caller has checked `size` against the format's limits.
std::vector<uint8_t> ReadHeaderBytes(const File& file, uint64_t size, uint64_t position,
                                     const std::string& name) {
  std::vector<uint8_t> bytes(size);
  const ReadResult result = ReadAt(file.descriptor(), bytes.data(), size, position);
  if (result.error != 0) {
    throw Error(MOLKV_IO, name + ": the header cannot be read: " + SystemMessage(result.error) +
                              " (check the storage)");
  }
  if (result.filled < size) {
    throw FormatError(name, "header bytes needed", size,
                      "the file ended at byte " + std::to_string(position + result.filled) +
                          " while being opened");
  }
  return bytes;
}

void RequireDirectIoAlignment(uint64_t start, const BlobHeader& header, const std::string& name) {
  if (header.row_stride % kPageSize != 0) {
    throw Error(MOLKV_UNSUPPORTED,
                name + ": row_stride is " + std::to_string(header.row_stride) +
                    ", but direct I/O needs a multiple of " + std::to_string(kPageSize) +
                    ", which rows of less than that do not have (open it without direct_io)");
  }
  if (start % kPageSize != 0) {
    throw Error(MOLKV_UNSUPPORTED, name + ": offset is " + std::to_string(start) +
                                       ", but direct I/O needs a multiple of " +
                                       std::to_string(kPageSize) +
                                       " (open it without direct_io, or align it in the package)");
  }
}

// Reads and validates the header page and checks the file's length against it.
BlobHeader ReadHeader(const File& file, uint64_t start, uint64_t size, const std::string& name) {
  const uint64_t page_size = std::min<uint64_t>(size, kHeaderSize);
  const std::vector<uint8_t> page = ReadHeaderBytes(file, page_size, start, name);
  const BlobHeader header = ParseBlobHeader(page.data(), page.size(), name);
  if (size != header.FileSize()) {
    throw FormatError(
        name, "file length", size,
        "data_offset + row_count * row_stride is " + std::to_string(header.FileSize()),
        "the copy is incomplete or has bytes appended: copy the file again");
  }
  // A gap of arbitrary bytes could hold a second file format; it is at most 1 MiB.
  const std::vector<uint8_t> gap =
      ReadHeaderBytes(file, header.data_offset - kHeaderSize, start + kHeaderSize, name);
  if (std::any_of(gap.begin(), gap.end(), [](uint8_t byte) { return byte != 0; })) {
    throw FormatError(name, "gap before data_offset", "not zero", "must be all zero");
  }
  return header;
}

constexpr char kCompleteSet[] = "pass all shards of one export, each once";

void RequireSame(const Shard& shard, const Shard& first, const std::string& field, uint64_t value,
                 uint64_t wanted) {
  if (value != wanted) {
    throw FormatError(shard.name, field, value, first.name + " has " + std::to_string(wanted),
                      kCompleteSet);
  }
}

void RequireAgreement(const Shard& shard, const Shard& first) {
  const auto same = [&](const char* field, uint64_t value, uint64_t wanted) {
    RequireSame(shard, first, field, value, wanted);
  };
  const BlobHeader& own = shard.header;
  const BlobHeader& other = first.header;
  same("shard_count", own.shard_count, other.shard_count);
  same("vocabulary_size", own.vocabulary_size, other.vocabulary_size);
  same("row_stride", own.row_stride, other.row_stride);
  if (own.identity != other.identity) {
    throw FormatError(
        shard.name, "identity", Hexadecimal(own.identity.data(), own.identity.size(), ""),
        first.name + " has " + Hexadecimal(other.identity.data(), other.identity.size(), ""),
        kCompleteSet);
  }
  const molkv_geometry& left = own.geometry;
  const molkv_geometry& right = other.geometry;
  same("layers", left.layers, right.layers);
  same("experts", left.experts, right.experts);
  same("key_heads", left.key_heads, right.key_heads);
  same("key_size", left.key_size, right.key_size);
  same("value_size", left.value_size, right.value_size);
  same("key_dtype", left.key_dtype, right.key_dtype);
  same("value_dtype", left.value_dtype, right.value_dtype);
  same("scale_dtype", left.scale_dtype, right.scale_dtype);
  same("key_group_size", left.key_group_size, right.key_group_size);
  same("value_group_size", left.value_group_size, right.value_group_size);
  same("embedding_dtype", own.embedding_dtype, other.embedding_dtype);
}

}  // namespace

Shard OpenShard(const std::string& path, bool direct_io) {
  File file = File::Open(path);
  const uint64_t size = RegularFileSize(file, path);
  const BlobHeader header = ReadHeader(file, 0, size, path);
  if (direct_io) {
    RequireDirectIoAlignment(0, header, path);
    file.UseDirectIo(path);
  }
  return Shard{std::move(file), 0, path, header};
}

Shard OpenShardInside(int descriptor, uint64_t offset, uint64_t length, bool direct_io) {
  const std::string name = "descriptor " + std::to_string(descriptor);
  File file = File::Duplicate(descriptor, name);
  const uint64_t file_size = RegularFileSize(file, name);
  if (offset > file_size) {
    throw FormatError(name, "offset", offset,
                      "the file has " + std::to_string(file_size) + " bytes",
                      "pass where the blob starts");
  }
  if (length > file_size - offset) {
    throw FormatError(name, "length", length,
                      "the file has " + std::to_string(file_size - offset) + " bytes from offset " +
                          std::to_string(offset),
                      "pass the blob's length");
  }
  const BlobHeader header = ReadHeader(file, offset, length, name);
  if (direct_io) {
    RequireDirectIoAlignment(offset, header, name);
    // A duplicate shares its flags with the caller's descriptor; a file opened anew does not.
    file = File::Reopen(file.descriptor(), name);
    file.UseDirectIo(name);
  }
  return Shard{std::move(file), offset, name, header};
}

void ArrangeShards(std::vector<Shard>& shards) {
  std::stable_sort(shards.begin(), shards.end(), [](const Shard& left, const Shard& right) {
    return left.header.shard_index < right.header.shard_index;
  });
  const Shard& first = shards.front();
  const uint64_t expected = first.header.shard_count;
  if (shards.size() != expected) {
    throw FormatError(first.name, "shard_count", expected,
                      std::to_string(shards.size()) + " of them were given", kCompleteSet);
  }
  uint64_t next_row = 0;
  for (size_t index = 0; index < shards.size(); ++index) {
    const Shard& shard = shards[index];
    if (shard.header.shard_index != index) {
      throw FormatError(shard.name, "shard_index", shard.header.shard_index,
                        "shard " + std::to_string(index) + " is missing", kCompleteSet);
    }
    RequireAgreement(shard, first);
    if (shard.header.first_row != next_row) {
      throw FormatError(shard.name, "first_row", shard.header.first_row,
                        "the shard before ends at " + std::to_string(next_row), kCompleteSet);
    }
    next_row = shard.header.first_row + shard.header.row_count;
  }
}

}  // namespace molkv
