// Valid blob files for the tests. Written from docs/format.md with nothing of the library's, so
// that a slip in its layout or checksum cannot hide itself here.

#ifndef MOLKV_TESTS_EXAMPLE_BLOB_H_
#define MOLKV_TESTS_EXAMPLE_BLOB_H_

#include <gtest/gtest.h>
#include <stdlib.h>

#include <cstdint>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <random>
#include <string>
#include <vector>

#include "molkv/molkv.h"

namespace molkv_test {

using Bytes = std::vector<uint8_t>;

inline constexpr size_t kPage = 16384;

// The definition, bit by bit.
inline uint32_t PlainCrc32c(const uint8_t* data, size_t size) {
  uint32_t state = 0xFFFFFFFF;
  for (size_t i = 0; i < size; ++i) {
    state ^= data[i];
    for (int bit = 0; bit < 8; ++bit) {
      state = (state & 1) != 0 ? (state >> 1) ^ 0x82F63B78 : state >> 1;
    }
  }
  return ~state;
}

template <typename Number>
void Put(Bytes& bytes, size_t offset, Number value) {
  for (size_t i = 0; i < sizeof(Number); ++i) {
    bytes[offset + i] = static_cast<uint8_t>(static_cast<uint64_t>(value) >> (8 * i));
  }
}

inline void SealHeader(Bytes& file) {
  Put<uint32_t>(file, kPage - 4, PlainCrc32c(file.data(), kPage - 4));
}

// A blob of random rows.
struct ExampleBlob {
  uint32_t layers = 2;
  uint32_t experts = 2;
  uint32_t key_heads = 1;
  uint32_t key_size = 3;
  uint32_t value_size = 6;
  bool quantized = true;
  bool embedded = false;
  uint64_t row_size = 0;
  uint64_t row_stride = 0;
  std::vector<Bytes> rows;

  static ExampleBlob Small(size_t count, uint32_t seed = 1) {
    ExampleBlob blob;
    blob.Fill(count, seed);
    return blob;
  }

  // Rows of a page and more, with several heads.
  static ExampleBlob Large(size_t count, uint32_t seed = 1) {
    ExampleBlob blob;
    blob.key_heads = 3;
    blob.key_size = 1;
    blob.value_size = 3001;
    blob.Fill(count, seed);
    return blob;
  }

  // Experts without keys, in half precision.
  static ExampleBlob WithoutKeys(size_t count, uint32_t seed = 1) {
    ExampleBlob blob;
    blob.layers = 3;
    blob.key_heads = 0;
    blob.key_size = 0;
    blob.value_size = 5;
    blob.quantized = false;
    blob.Fill(count, seed);
    return blob;
  }

  // Rows that carry an input embedding, of an odd number of halves.
  static ExampleBlob Embedded(size_t count, uint32_t seed = 1) {
    ExampleBlob blob;
    blob.value_size = 5;
    blob.embedded = true;
    blob.Fill(count, seed);
    return blob;
  }

  uint64_t LayersSize() const {
    const uint64_t embedding = embedded ? (value_size + 1) / 2 * 4 : 0;
    return row_size - 4 - embedding;
  }

  void Fill(size_t count, uint32_t seed) {
    const auto rounded = [](uint64_t size, uint64_t to) { return (size + to - 1) / to * to; };
    const uint64_t element = quantized ? 1 : 2;
    const uint64_t keys = uint64_t{experts} * key_heads * key_size * element;
    const uint64_t values = uint64_t{experts} * value_size * element;
    const uint64_t scales = quantized ? 4 * experts * (key_heads > 0 ? 2 : 1) : 0;
    const uint64_t layer = rounded(keys, 4) + rounded(values, 4) + scales;
    const uint64_t embedding = embedded ? rounded(2 * value_size, 4) : 0;
    row_size = layers * layer + embedding + 4;
    row_stride = rounded(row_size, row_size >= 4096 ? 4096 : 64);
    std::mt19937 random(seed);
    rows.assign(count, Bytes(row_stride, 0));
    for (Bytes& row : rows) {
      for (uint64_t i = 0; i < row_size - 4; ++i) {
        // Padding between sections is zero.
        const uint64_t place = i % layer;
        const bool padding = i >= layers * layer
                                 ? i >= layers * layer + 2 * value_size
                                 : (place >= keys && place < rounded(keys, 4)) ||
                                       (place >= rounded(keys, 4) + values &&
                                        place < rounded(keys, 4) + rounded(values, 4));
        row[i] = padding ? 0 : static_cast<uint8_t>(random());
      }
      Put<uint32_t>(row, row_size - 4, PlainCrc32c(row.data(), row_size - 4));
    }
  }

  Bytes Header(size_t first, size_t count, uint32_t shard, uint32_t shards) const {
    const uint8_t magic[] = {0x89, 'M', 'O', 'L', 'K', 'V', 13, 10};
    Bytes page(kPage, 0);
    std::memcpy(page.data(), magic, sizeof(magic));
    Put<uint16_t>(page, 8, 1);
    Put<uint16_t>(page, 10, embedded ? 2 : 0);
    Put<uint32_t>(page, 12, kPage);
    Put<uint64_t>(page, 16, kPage);
    Put<uint64_t>(page, 24, row_stride);
    Put<uint64_t>(page, 32, row_size);
    Put<uint64_t>(page, 40, rows.size());
    Put<uint64_t>(page, 48, first);
    Put<uint64_t>(page, 56, count);
    Put<uint32_t>(page, 64, shard);
    Put<uint32_t>(page, 68, shards);
    Put<uint32_t>(page, 72, layers);
    Put<uint32_t>(page, 76, experts);
    Put<uint32_t>(page, 80, key_heads);
    Put<uint32_t>(page, 84, key_size);
    Put<uint32_t>(page, 88, value_size);
    const uint16_t dtype = quantized ? 3 : 2;
    Put<uint16_t>(page, 92, key_heads > 0 ? dtype : 0);
    Put<uint16_t>(page, 94, dtype);
    Put<uint16_t>(page, 96, quantized ? 1 : 0);
    Put<uint32_t>(page, 100, quantized ? key_heads * key_size : 0);
    Put<uint32_t>(page, 104, quantized ? value_size : 0);
    for (uint8_t i = 0; i < 32; ++i) {
      page[112 + i] = static_cast<uint8_t>(200 + i);
    }
    Put<uint16_t>(page, 144, embedded ? 2 : 0);
    SealHeader(page);
    return page;
  }

  // Rows [first, first + count) as one file.
  Bytes File(size_t first, size_t count, uint32_t shard, uint32_t shards) const {
    Bytes file = Header(first, count, shard, shards);
    for (size_t row = first; row < first + count; ++row) {
      file.insert(file.end(), rows[row].begin(), rows[row].end());
    }
    return file;
  }

  Bytes File() const { return File(0, rows.size(), 0, 1); }

  // All rows over some files of about the same length.
  std::vector<Bytes> Shards(uint32_t count) const {
    std::vector<Bytes> files;
    for (uint32_t shard = 0; shard < count; ++shard) {
      const size_t first = rows.size() * shard / count;
      const size_t end = rows.size() * (shard + 1) / count;
      files.push_back(File(first, end - first, shard, count));
    }
    return files;
  }

  molkv_geometry Geometry() const {
    molkv_geometry geometry{};
    geometry.layers = layers;
    geometry.experts = experts;
    geometry.key_heads = key_heads;
    geometry.key_size = key_size;
    geometry.value_size = value_size;
    const uint32_t dtype = quantized ? MOLKV_INT8 : MOLKV_FLOAT16;
    geometry.key_dtype = key_heads > 0 ? dtype : uint32_t{MOLKV_NONE};
    geometry.value_dtype = dtype;
    geometry.scale_dtype = quantized ? MOLKV_FLOAT32 : MOLKV_NONE;
    geometry.key_group_size = quantized ? key_heads * key_size : 0;
    geometry.value_group_size = quantized ? value_size : 0;
    return geometry;
  }
};

// A folder that is gone after the test.
class Folder {
 public:
  Folder() : path_(::testing::TempDir() + "molkv-XXXXXX") {
    if (mkdtemp(path_.data()) == nullptr) {
      throw std::runtime_error("no temporary folder");
    }
  }
  ~Folder() { std::filesystem::remove_all(path_); }

  std::string Write(const std::string& name, const Bytes& bytes) const {
    const std::string path = path_ + "/" + name;
    std::ofstream file(path, std::ios::binary);
    file.write(reinterpret_cast<const char*>(bytes.data()),
               static_cast<std::streamsize>(bytes.size()));
    return path;
  }

  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

// Opens files of a test that must be right; NULL and a failed test otherwise.
inline molkv_blob* OpenOrFail(const std::vector<std::string>& paths,
                              const molkv_blob_options* options = nullptr) {
  std::vector<const char*> names;
  for (const std::string& path : paths) {
    names.push_back(path.c_str());
  }
  molkv_blob* blob = nullptr;
  molkv_error error{};
  EXPECT_EQ(molkv_blob_open(names.data(), names.size(), options, &blob, &error), MOLKV_OK)
      << error.message;
  return blob;
}

inline molkv_blob_options Options() {
  molkv_blob_options options{};
  options.struct_size = sizeof(options);
  return options;
}

}  // namespace molkv_test

#endif  // MOLKV_TESTS_EXAMPLE_BLOB_H_
