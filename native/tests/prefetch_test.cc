// A prefetch gives what a read gives, at any time, and never outlives its blob.

#include "prefetch.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <chrono>
#include <cstring>
#include <future>
#include <string>
#include <thread>
#include <vector>

#include "example_blob.h"

namespace molkv {
namespace {

using molkv_test::Bytes;
using molkv_test::ExampleBlob;
using molkv_test::Folder;
using molkv_test::OpenOrFail;
using molkv_test::Options;

molkv_prefetch* StartOrFail(molkv_blob* blob, const std::vector<int64_t>& ids) {
  molkv_prefetch* prefetch = nullptr;
  molkv_error error{};
  EXPECT_EQ(molkv_prefetch_start(blob, ids.data(), ids.size(), &prefetch, &error), MOLKV_OK)
      << error.message;
  return prefetch;
}

void ExpectRows(const ExampleBlob& example, const std::vector<int64_t>& ids,
                molkv_prefetch* prefetch) {
  const uint8_t* rows = nullptr;
  const uint32_t* index = nullptr;
  size_t distinct = 0;
  molkv_error error{};
  ASSERT_EQ(molkv_prefetch_wait(prefetch, &rows, &index, &distinct, &error), MOLKV_OK)
      << error.message;
  for (size_t token = 0; token < ids.size(); ++token) {
    ASSERT_LT(index[token], distinct);
    const Bytes& wanted = example.rows[static_cast<size_t>(ids[token])];
    ASSERT_EQ(std::memcmp(rows + index[token] * example.row_stride, wanted.data(), wanted.size()),
              0);
  }
}

TEST(PrefetchTest, RowsAreThoseOfARead) {
  const Folder folder;
  const ExampleBlob example = ExampleBlob::Small(31);
  const std::string path = folder.Write("a", example.File());
  for (const uint32_t readers : {1u, 4u}) {
    molkv_blob_options options = Options();
    options.readers = readers;
    molkv_blob* blob = OpenOrFail({path}, &options);
    for (const std::vector<int64_t>& ids :
         std::vector<std::vector<int64_t>>{{}, {5}, {30, 0, 30, 7, 7, 1}}) {
      molkv_prefetch* prefetch = StartOrFail(blob, ids);
      ExpectRows(example, ids, prefetch);
      ExpectRows(example, ids, prefetch);  // repeatable
      molkv_prefetch_free(prefetch);
    }
    molkv_blob_stats stats{};
    molkv_blob_get_stats(blob, &stats);
    EXPECT_EQ(stats.rows, 1u + 4) << "each distinct row once, however often it is waited for";
    molkv_blob_close(blob);
  }
}

TEST(PrefetchTest, TheIdsAreCopiedAndCheckedAtTheStart) {
  const Folder folder;
  const ExampleBlob example = ExampleBlob::Small(31);
  molkv_blob* blob = OpenOrFail({folder.Write("a", example.File())});
  std::vector<int64_t> ids = {3, 9};
  molkv_prefetch* prefetch = StartOrFail(blob, ids);
  ids = {1, 1};
  ExpectRows(example, {3, 9}, prefetch);
  molkv_prefetch_free(prefetch);
  prefetch = nullptr;
  molkv_error error{};
  ids = {3, 31};
  EXPECT_EQ(molkv_prefetch_start(blob, ids.data(), 2, &prefetch, &error), MOLKV_OUT_OF_RANGE);
  EXPECT_EQ(prefetch, nullptr);
  EXPECT_NE(std::string(error.message).find("token id 31"), std::string::npos);
  EXPECT_EQ(molkv_prefetch_start(blob, nullptr, 2, &prefetch, &error), MOLKV_INVALID_ARGUMENT);
  molkv_blob_close(blob);
}

TEST(PrefetchTest, DamageIsReportedByEveryWait) {
  const Folder folder;
  Bytes file = ExampleBlob::Small(31).File();
  file[molkv_test::kPage + 9 * 128] ^= 1;
  molkv_blob* blob = OpenOrFail({folder.Write("a", file)});
  molkv_prefetch* prefetch = StartOrFail(blob, {3, 9, 12});
  const uint8_t* rows = nullptr;
  const uint32_t* index = nullptr;
  size_t distinct = 9;
  for (int repeat = 0; repeat < 2; ++repeat) {
    molkv_error error{};
    EXPECT_EQ(molkv_prefetch_wait(prefetch, &rows, &index, &distinct, &error), MOLKV_CORRUPT_ROW);
    EXPECT_NE(std::string(error.message).find("row of token id 9:"), std::string::npos);
    EXPECT_EQ(rows, nullptr);
    EXPECT_EQ(distinct, 9u);
  }
  molkv_prefetch_free(prefetch);
  molkv_blob_close(blob);
}

TEST(PrefetchTest, ItIsReadInTheBackground) {
  const Folder folder;
  molkv_blob* blob = OpenOrFail({folder.Write("a", ExampleBlob::Small(31).File())});
  molkv_prefetch* prefetch = StartOrFail(blob, {1, 2, 3});
  molkv_blob_stats stats{};
  const auto patience = std::chrono::steady_clock::now() + std::chrono::seconds(10);
  while (stats.rows < 3 && std::chrono::steady_clock::now() < patience) {
    std::this_thread::yield();
    molkv_blob_get_stats(blob, &stats);
  }
  EXPECT_EQ(stats.rows, 3u) << "nobody waits for the prefetch, and yet it gets on";
  molkv_prefetch_free(prefetch);
  molkv_blob_close(blob);
}

TEST(PrefetchTest, WaitingDoesNotNeedAFreeThread) {
  const Folder folder;
  const ExampleBlob example = ExampleBlob::Small(31);
  const std::string path = folder.Write("a", example.File());
  std::promise<void> go;  // outlives the threads of the blob
  BlobOptions options;
  options.readers = 1;
  std::vector<Shard> shards;
  shards.push_back(OpenShard(path, false));
  Blob blob(std::move(shards), options);
  ASSERT_TRUE(blob.pool().Start([&] { go.get_future().wait(); }));
  const int64_t ids[] = {4, 2};
  {
    Prefetch waiting(blob, ids, 2);
    Prefetch given_up(blob, ids, 2);
    EXPECT_NO_THROW(waiting.Wait());
    EXPECT_EQ(std::memcmp(waiting.rows(), example.rows[2].data(), example.row_stride), 0);
    EXPECT_EQ(blob.stats().rows, 2u);
  }
  EXPECT_EQ(blob.stats().rows, 2u) << "a prefetch freed before it began is not read";
  go.set_value();
}

TEST(PrefetchTest, ManyAtOnceBesideReads) {
  const Folder folder;
  const ExampleBlob example = ExampleBlob::Small(31);
  molkv_blob_options options = Options();
  options.readers = 2;
  options.cache_bytes = 4000;
  molkv_blob* blob = OpenOrFail({folder.Write("a", example.File())}, &options);
  std::vector<std::thread> threads;
  for (int64_t thread = 0; thread < 6; ++thread) {
    threads.emplace_back([&, thread] {
      for (int64_t repeat = 0; repeat < 30; ++repeat) {
        const std::vector<int64_t> ids = {(thread * 5 + repeat) % 31, (repeat * 3) % 31, 30};
        molkv_prefetch* kept = StartOrFail(blob, ids);
        molkv_prefetch_free(StartOrFail(blob, ids));
        Bytes rows(3 * example.row_stride);
        uint32_t index[3];
        size_t distinct = 0;
        EXPECT_EQ(molkv_blob_read(blob, ids.data(), 3, rows.data(), index, &distinct, nullptr),
                  MOLKV_OK);
        ExpectRows(example, ids, kept);
        molkv_prefetch_free(kept);
      }
    });
  }
  for (std::thread& thread : threads) {
    thread.join();
  }
  molkv_blob_close(blob);
}

TEST(PrefetchTest, NullIsFreedAndRefused) {
  molkv_prefetch_free(nullptr);
  EXPECT_EQ(molkv_prefetch_wait(nullptr, nullptr, nullptr, nullptr, nullptr),
            MOLKV_INVALID_ARGUMENT);
}

}  // namespace
}  // namespace molkv
