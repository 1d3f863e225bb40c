// Rows come back as they were written, in any mode and thread, and damage is reported.

#include "blob.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstring>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "blob_reading.h"
#include "example_blob.h"

namespace molkv {
namespace {

using molkv_test::Batch;
using molkv_test::Bytes;
using molkv_test::ExampleBlob;
using molkv_test::ExpectRows;
using molkv_test::Folder;
using molkv_test::kPage;
using molkv_test::OpenOrFail;
using molkv_test::Options;
using molkv_test::Read;
using molkv_test::StatsOf;

std::vector<int64_t> RandomIds(std::mt19937& random, size_t count, size_t vocabulary) {
  std::vector<int64_t> ids(count);
  for (int64_t& id : ids) {
    id = static_cast<int64_t>(random() % vocabulary);
  }
  return ids;
}

TEST(BlobTest, ReadsAnyTokensOfAnyShardsInAnyMode) {
  std::mt19937 random(3);
  for (const ExampleBlob& example : {ExampleBlob::Small(23), ExampleBlob::Large(23),
                                     ExampleBlob::WithoutKeys(23), ExampleBlob::Embedded(23)}) {
    for (const uint32_t shard_count : {1u, 2u, 5u}) {
      const Folder folder;
      std::vector<std::string> paths;
      for (const Bytes& file : example.Shards(shard_count)) {
        paths.push_back(folder.Write(std::to_string(paths.size()), file));
      }
      std::shuffle(paths.begin(), paths.end(), random);
      for (uint32_t way = 0; way < 8; ++way) {
        molkv_blob_options options = Options();
        options.readers = (way & 1) != 0 ? 1 : 3;
        options.mode = (way & 2) != 0 ? MOLKV_RESIDENT : MOLKV_STORAGE;
        options.cache_bytes = (way & 4) != 0 ? 5 * (example.row_stride + 192) : 0;
        molkv_blob* blob = OpenOrFail(paths, &options);
        for (const size_t count : {0, 1, 2, 40}) {
          const std::vector<int64_t> ids = RandomIds(random, count, 23);
          ExpectRows(example, ids, Read(blob, ids));
        }
        molkv_blob_close(blob);
      }
    }
  }
}

TEST(BlobTest, GivesTheEmbeddingsThatRowsCarry) {
  std::mt19937 random(5);
  const ExampleBlob example = ExampleBlob::Embedded(23);
  const Folder folder;
  std::vector<std::string> paths;
  for (const Bytes& file : example.Shards(2)) {
    paths.push_back(folder.Write(std::to_string(paths.size()), file));
  }
  molkv_blob* blob = OpenOrFail(paths);
  ASSERT_EQ(molkv_blob_embedding_dtype(blob), uint32_t{MOLKV_FLOAT16});
  for (const size_t count : {0, 1, 2, 40}) {
    const std::vector<int64_t> ids = RandomIds(random, count, 23);
    const Batch batch = Read(blob, ids);
    ExpectRows(example, ids, batch);
    std::vector<float> embeddings(count * 5 + 1, -7);
    ASSERT_EQ(molkv_blob_embeddings(blob, batch.rows.data(), batch.index.data(), count,
                                    embeddings.data(), nullptr),
              MOLKV_OK);
    EXPECT_EQ(embeddings.back(), -7) << "written past the end";
    for (size_t token = 0; token < count; ++token) {
      const Bytes& row = example.rows[static_cast<size_t>(ids[token])];
      for (size_t place = 0; place < 5; ++place) {
        const uint8_t* half = row.data() + example.LayersSize() + 2 * place;
        // Sign, exponent and fraction, as IEEE 754 has them.
        const int exponent = half[1] >> 2 & 31;
        const int fraction = (half[1] & 3) << 8 | half[0];
        if (exponent == 31) continue;  // infinity or NaN
        const double magnitude =
            exponent == 0 ? std::ldexp(fraction, -24) : std::ldexp(1024 + fraction, exponent - 25);
        const double expected = (half[1] & 0x80) != 0 ? -magnitude : magnitude;
        EXPECT_EQ(embeddings[token * 5 + place], expected);
      }
    }
  }
  molkv_blob_close(blob);
}

TEST(BlobTest, RowsWithoutEmbeddingsGiveNone) {
  const Folder folder;
  molkv_blob* blob = OpenOrFail({folder.Write("a", ExampleBlob::Small(11).File())});
  EXPECT_EQ(molkv_blob_embedding_dtype(blob), uint32_t{MOLKV_NONE});
  const Batch batch = Read(blob, {1});
  float embedding = -7;
  molkv_error error{};
  EXPECT_EQ(
      molkv_blob_embeddings(blob, batch.rows.data(), batch.index.data(), 1, &embedding, &error),
      MOLKV_INVALID_ARGUMENT);
  EXPECT_NE(std::string(error.message).find("carry no input embedding"), std::string::npos);
  EXPECT_EQ(embedding, -7);
  molkv_blob_close(blob);
}

TEST(BlobTest, AWindowTakesRowsWithEmbeddingsAsRowsWithout) {
  const Folder folder;
  const ExampleBlob example = ExampleBlob::Embedded(4);
  molkv_blob* blob = OpenOrFail({folder.Write("a", example.File())});
  const Batch batch = Read(blob, {2});
  const molkv_geometry geometry = example.Geometry();
  molkv_window* window = nullptr;
  ASSERT_EQ(molkv_window_create(&geometry, 3, 2, &window, nullptr), MOLKV_OK);
  ASSERT_EQ(molkv_window_append(window, batch.rows.data(), example.row_stride, batch.index.data(),
                                1, nullptr),
            MOLKV_OK);
  molkv_plane plane{};
  ASSERT_EQ(molkv_window_plane(window, 1, MOLKV_VALUES, &plane, nullptr), MOLKV_OK);
  const uint64_t layer = example.LayersSize() / 2;
  EXPECT_EQ(std::memcmp(plane.data, example.rows[2].data() + layer + 8, 10), 0);
  molkv_window_free(window);
  molkv_blob_close(blob);
}

TEST(BlobTest, RowsAscendAndEachIsReadOnce) {
  const Folder folder;
  const ExampleBlob example = ExampleBlob::Small(11);
  molkv_blob* blob = OpenOrFail({folder.Write("a", example.File())});
  const Batch batch = Read(blob, {7, 2, 7, 2, 2, 5});
  EXPECT_EQ(batch.distinct, 3u);
  EXPECT_EQ(batch.index, (std::vector<uint32_t>{2, 0, 2, 0, 0, 1}));
  const molkv_blob_stats stats = StatsOf(blob);
  EXPECT_EQ(stats.reads, 3u);
  EXPECT_EQ(stats.rows, 3u);
  EXPECT_EQ(stats.bytes, 3u * 128);
  EXPECT_EQ(stats.cache_hits, 0u);
  EXPECT_GT(stats.nanoseconds, 0u);
  molkv_blob_close(blob);
}

TEST(BlobTest, TellsWhatItHolds) {
  const Folder folder;
  const ExampleBlob example = ExampleBlob::Small(11);
  molkv_blob* blob = OpenOrFail({folder.Write("a", example.File())});
  molkv_blob_info info{};
  molkv_blob_get_info(blob, &info);
  const molkv_geometry geometry = example.Geometry();
  EXPECT_EQ(std::memcmp(&info.geometry, &geometry, sizeof(geometry)), 0);
  EXPECT_EQ(info.vocabulary_size, 11u);
  EXPECT_EQ(info.row_size, 76u);
  EXPECT_EQ(info.row_stride, 128u);
  EXPECT_EQ(info.identity[31], 231);
  molkv_blob_close(blob);
}

TEST(BlobTest, AnIdOutsideTheVocabularyIsNamedAndNothingIsRead) {
  const Folder folder;
  molkv_blob* blob = OpenOrFail({folder.Write("a", ExampleBlob::Small(11).File())});
  for (const int64_t bad : {int64_t{-1}, int64_t{11}, INT64_MAX, INT64_MIN}) {
    const Batch batch = Read(blob, {1, bad});
    EXPECT_EQ(batch.status, MOLKV_OUT_OF_RANGE);
    EXPECT_NE(batch.message.find("token id " + std::to_string(bad) +
                                 " is outside the vocabulary, 0 to 10"),
              std::string::npos)
        << batch.message;
    EXPECT_EQ(batch.index[0], 77u) << "outputs stay as they were";
  }
  EXPECT_EQ(StatsOf(blob).reads, 0u);
  molkv_blob_close(blob);
}

TEST(BlobTest, TheFirstDamagedRowIsNamedHoweverManyReaders) {
  const Folder folder;
  Bytes file = ExampleBlob::Small(64).File();
  for (const size_t row : {17, 18, 40}) {
    file[kPage + row * 128 + 75] ^= 1;  // the stored checksum
  }
  const std::string path = folder.Write("a.molkv", file);
  std::vector<int64_t> ids(64);
  for (int64_t i = 0; i < 64; ++i) {
    ids[static_cast<size_t>(i)] = 63 - i;
  }
  for (const uint32_t readers : {1u, 2u, 8u}) {
    molkv_blob_options options = Options();
    options.readers = readers;
    molkv_blob* blob = OpenOrFail({path}, &options);
    for (int repeat = 0; repeat < 20; ++repeat) {
      const Batch batch = Read(blob, ids);
      EXPECT_EQ(batch.status, MOLKV_CORRUPT_ROW);
      EXPECT_EQ(batch.message.find(path + ": row of token id 17: stored CRC32C is 0x"), 0u)
          << batch.message;
      EXPECT_EQ(batch.distinct, 0u);
    }
    ExpectRows(ExampleBlob::Small(64), {1, 2, 3}, Read(blob, {1, 2, 3}));
    molkv_blob_close(blob);
  }
  molkv_blob_options trusting = Options();
  trusting.skip_verify = 1;
  molkv_blob* blob = OpenOrFail({path}, &trusting);
  EXPECT_EQ(Read(blob, ids).status, MOLKV_OK);
  molkv_blob_close(blob);
  molkv_blob_options resident = Options();
  resident.mode = MOLKV_RESIDENT;
  const char* name = path.c_str();
  molkv_error error{};
  EXPECT_EQ(molkv_blob_open(&name, 1, &resident, &blob, &error), MOLKV_CORRUPT_ROW);
  EXPECT_NE(std::string(error.message).find("token id 17:"), std::string::npos) << error.message;
}

TEST(BlobTest, AFileCutWhileOpenIsReportedForTheRow) {
  const Folder folder;
  const std::string path = folder.Write("a", ExampleBlob::Small(11).File());
  molkv_blob* blob = OpenOrFail({path});
  ASSERT_EQ(truncate(path.c_str(), static_cast<off_t>(kPage + 10 * 128 + 40)), 0);
  EXPECT_EQ(Read(blob, {9}).status, MOLKV_OK);
  const Batch batch = Read(blob, {10});
  EXPECT_EQ(batch.status, MOLKV_CORRUPT_ROW);
  EXPECT_NE(batch.message.find("token id 10 at byte 17664 has 40 bytes left of 128"),
            std::string::npos)
      << batch.message;
  molkv_blob_close(blob);
}

TEST(BlobTest, ResidentRowsOutliveTheFile) {
  const Folder folder;
  const ExampleBlob example = ExampleBlob::Small(11);
  const std::string path = folder.Write("a", example.File());
  molkv_blob_options options = Options();
  options.mode = MOLKV_RESIDENT;
  molkv_blob* blob = OpenOrFail({path}, &options);
  ASSERT_EQ(truncate(path.c_str(), 0), 0);
  ExpectRows(example, {10, 3, 3}, Read(blob, {10, 3, 3}));
  EXPECT_EQ(StatsOf(blob).reads, 0u);
  molkv_blob_close(blob);
}

TEST(BlobTest, RowsThatNoMemoryHasRoomForAreRefusedBeforeTheyAreAllocated) {
  const Folder folder;
  ExampleBlob example = ExampleBlob::Large(1);
  Bytes page = example.Header(0, 1, 0, 1);
  constexpr uint64_t kRows = 1 << 30;
  molkv_test::Put<uint64_t>(page, 40, kRows);
  molkv_test::Put<uint64_t>(page, 56, kRows);
  molkv_test::SealHeader(page);
  const std::string path = folder.Write("a", page);
  // A file of 12 TiB of holes.
  const uint64_t size = kPage + kRows * example.row_stride;
  ASSERT_EQ(truncate(path.c_str(), static_cast<off_t>(size)), 0);
  molkv_blob_options options = Options();
  options.mode = MOLKV_RESIDENT;
  const char* name = path.c_str();
  molkv_blob* blob = nullptr;
  molkv_error error{};
  EXPECT_EQ(molkv_blob_open(&name, 1, &options, &blob, &error), MOLKV_OUT_OF_MEMORY);
  EXPECT_NE(std::string(error.message).find("mode is resident"), std::string::npos);
  blob = OpenOrFail({path});
  const Batch batch = Read(blob, {kRows - 1});
  EXPECT_EQ(batch.status, MOLKV_CORRUPT_ROW) << "a row of zeros has no valid checksum";
  molkv_blob_close(blob);
}

TEST(BlobTest, TheCacheServesWhatWasReadBefore) {
  const Folder folder;
  const ExampleBlob example = ExampleBlob::Small(11);
  molkv_blob_options options = Options();
  options.cache_bytes = 3 * (128 + RowCache::kEntryOverhead);
  molkv_blob* blob = OpenOrFail({folder.Write("a", example.File())}, &options);
  const std::vector<std::vector<int64_t>> reads = {{1, 2}, {1, 2, 3}, {4}, {1}, {2, 3, 4}};
  const std::vector<uint64_t> hits = {0, 2, 2, 2, 3};
  uint64_t rows = 0;
  for (size_t i = 0; i < reads.size(); ++i) {
    ExpectRows(example, reads[i], Read(blob, reads[i]));
    rows += reads[i].size();
    const molkv_blob_stats stats = StatsOf(blob);
    // {4} drops one of {1, 2, 3}: readers may have finished these in any order.
    if (i < 3) {
      EXPECT_EQ(stats.cache_hits, hits[i]);
    }
    EXPECT_EQ(stats.cache_hits + stats.rows, rows);
  }
  molkv_blob_close(blob);
}

TEST(BlobTest, ManyThreadsReadRightRowsAndAllAreCounted) {
  const Folder folder;
  const ExampleBlob example = ExampleBlob::Small(97);
  const std::string path = folder.Write("a", example.File());
  for (const uint64_t cache_bytes : {0u, 9000u}) {
    molkv_blob_options options = Options();
    options.readers = 3;
    options.cache_bytes = cache_bytes;
    molkv_blob* blob = OpenOrFail({path}, &options);
    std::atomic<uint64_t> distinct{0};
    std::vector<std::thread> threads;
    for (uint32_t seed = 0; seed < 8; ++seed) {
      threads.emplace_back([&, seed] {
        std::mt19937 random(seed);
        for (int repeat = 0; repeat < 40; ++repeat) {
          const std::vector<int64_t> ids = RandomIds(random, random() % 30, 97);
          const Batch batch = Read(blob, ids);
          ExpectRows(example, ids, batch);
          distinct += batch.distinct;
          StatsOf(blob);
        }
      });
    }
    for (std::thread& thread : threads) {
      thread.join();
    }
    const molkv_blob_stats stats = StatsOf(blob);
    EXPECT_EQ(stats.rows + stats.cache_hits, distinct.load());
    EXPECT_EQ(stats.reads, stats.rows);
    EXPECT_EQ(stats.bytes, stats.rows * 128);
    molkv_blob_close(blob);
  }
}

}  // namespace
}  // namespace molkv
