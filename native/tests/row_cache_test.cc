// The cache keeps the rows used last and never more than fit.

#include "row_cache.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <list>
#include <random>
#include <thread>
#include <vector>

namespace molkv {
namespace {

constexpr uint64_t kStride = 64;

std::vector<uint8_t> RowOf(int64_t token_id) {
  return std::vector<uint8_t>(kStride, static_cast<uint8_t>(token_id * 7 + 1));
}

RowCache CacheOf(uint64_t rows) {
  return RowCache(rows * (kStride + RowCache::kEntryOverhead), kStride);
}

TEST(RowCacheTest, CapacityIsWhatFitsInTheBytes) {
  EXPECT_EQ(CacheOf(5).capacity(), 5u);
  EXPECT_EQ(RowCache(5 * (kStride + RowCache::kEntryOverhead) - 1, kStride).capacity(), 4u);
  RowCache none(kStride, kStride);
  none.Insert(1, RowOf(1).data());
  EXPECT_EQ(none.size(), 0u);
}

TEST(RowCacheTest, ActsLikeAListOfTheRowsUsedLast) {
  std::mt19937 random(5);
  RowCache cache(6 * (kStride + RowCache::kEntryOverhead), kStride);
  std::list<int64_t> model;
  for (int step = 0; step < 5000; ++step) {
    const int64_t token_id = random() % 12;
    const auto place = std::find(model.begin(), model.end(), token_id);
    std::vector<uint8_t> row(kStride);
    ASSERT_EQ(cache.Find(token_id, row.data()), place != model.end()) << "step " << step;
    if (place != model.end()) {
      ASSERT_EQ(row, RowOf(token_id));
      model.erase(place);
    } else {
      cache.Insert(token_id, RowOf(token_id).data());
    }
    model.push_front(token_id);
    model.resize(std::min<size_t>(model.size(), 6));
    ASSERT_EQ(cache.size(), model.size());
  }
}

TEST(RowCacheTest, ThreadsFindWholeRows) {
  RowCache cache(4 * (kStride + RowCache::kEntryOverhead), kStride);
  std::vector<std::thread> threads;
  std::atomic<int> hits{0};
  for (uint32_t seed = 0; seed < 4; ++seed) {
    threads.emplace_back([&, seed] {
      std::mt19937 random(seed);
      std::vector<uint8_t> row(kStride);
      for (int step = 0; step < 3000; ++step) {
        const int64_t token_id = random() % 8;
        if (cache.Find(token_id, row.data())) {
          ASSERT_EQ(row, RowOf(token_id));
          ++hits;
        } else {
          cache.Insert(token_id, RowOf(token_id).data());
        }
      }
    });
  }
  for (std::thread& thread : threads) {
    thread.join();
  }
  EXPECT_GT(hits.load(), 0);
  EXPECT_LE(cache.size(), 4u);
}

}  // namespace
}  // namespace molkv
