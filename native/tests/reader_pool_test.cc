// Threads start when they are needed, all items are done, and the first failure is the one thrown.

#include "reader_pool.h"

#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <future>
#include <mutex>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "error.h"

namespace molkv {
namespace {

TEST(ReaderPoolTest, NoThreadStartsForOneItemOrOneReader) {
  ReaderPool many(8);
  ReaderPool one(1);
  const std::thread::id here = std::this_thread::get_id();
  const auto inline_only = [&](size_t) { EXPECT_EQ(std::this_thread::get_id(), here); };
  for (int repeat = 0; repeat < 3; ++repeat) {
    many.Run(0, inline_only);
    many.Run(1, inline_only);
    one.Run(50, inline_only);
  }
  EXPECT_EQ(many.threads(), 0u);
  EXPECT_EQ(one.threads(), 0u);
}

TEST(ReaderPoolTest, EveryItemIsDoneOnce) {
  ReaderPool pool(4);
  for (size_t count : {2, 3, 5, 100}) {
    std::vector<std::atomic<int>> done(count);
    pool.Run(count, [&](size_t item) { ++done[item]; });
    for (const std::atomic<int>& times : done) {
      EXPECT_EQ(times.load(), 1);
    }
  }
  EXPECT_LE(pool.threads(), 4u);
  EXPECT_GE(pool.threads(), 1u);
}

TEST(ReaderPoolTest, ItemsAreDoneAtTheSameTime) {
  ReaderPool pool(3);
  // Each of three items waits for the other two: with fewer threads this would never end.
  std::mutex mutex;
  std::condition_variable arrived;
  int here = 0;
  pool.Run(3, [&](size_t) {
    std::unique_lock<std::mutex> lock(mutex);
    ++here;
    arrived.notify_all();
    arrived.wait(lock, [&] { return here == 3; });
  });
  EXPECT_EQ(here, 3);
}

TEST(ReaderPoolTest, TheFirstFailureIsThrownAndLaterItemsAreLeftOut) {
  ReaderPool pool(4);
  for (int repeat = 0; repeat < 50; ++repeat) {
    std::atomic<size_t> begun{0};
    try {
      pool.Run(2000, [&](size_t item) {
        ++begun;
        if (item >= 20) {
          throw Error(MOLKV_CORRUPT_ROW, "item " + std::to_string(item));
        }
      });
      FAIL() << "nothing was thrown";
    } catch (const Error& error) {
      EXPECT_EQ(std::string(error.what()), "item 20");
      EXPECT_EQ(error.status(), MOLKV_CORRUPT_ROW);
    }
    EXPECT_LT(begun.load(), 100u);
  }
}

TEST(ReaderPoolTest, TheFirstFailureIsThatOfTheLowestItemWhicheverComesFirst) {
  ReaderPool pool(2);
  for (const size_t early : {0, 1}) {
    std::promise<void> both;
    const std::shared_future<void> other_begun = both.get_future().share();
    try {
      pool.Run(2, [&](size_t item) {
        if (item == 1) {
          both.set_value();
        }
        other_begun.wait();
        if (item != early) {
          std::this_thread::sleep_for(std::chrono::milliseconds(20));
        }
        throw Error(MOLKV_CORRUPT_ROW, "item " + std::to_string(item));
      });
      FAIL() << "nothing was thrown";
    } catch (const Error& error) {
      EXPECT_EQ(std::string(error.what()), "item 0");
    }
  }
}

TEST(ReaderPoolTest, ManyCallersAndTasksThatCallThemselvesShareAPool) {
  std::atomic<size_t> sum{0};
  {
    ReaderPool pool(2);
    std::vector<std::thread> callers;
    for (int caller = 0; caller < 6; ++caller) {
      callers.emplace_back([&] {
        for (int repeat = 0; repeat < 20; ++repeat) {
          pool.Run(10, [&](size_t item) { sum += item; });
          ASSERT_TRUE(pool.Start([&] { pool.Run(10, [&](size_t item) { sum += item; }); }));
        }
      });
    }
    for (std::thread& caller : callers) {
      caller.join();
    }
    EXPECT_LE(pool.threads(), 2u);
  }
  EXPECT_EQ(sum.load(), 6u * 20 * 2 * 45) << "the destructor waits for tasks";
}

TEST(ReaderPoolTest, StartReturnsBeforeTheTaskEnds) {
  std::promise<void> go;
  std::promise<void> ended;
  ReaderPool pool(1);  // gone before what its thread uses
  ASSERT_TRUE(pool.Start([&] {
    go.get_future().wait();
    ended.set_value();
  }));
  // Were the task run here, this line would not be reached.
  go.set_value();
  ended.get_future().wait();
  EXPECT_EQ(pool.threads(), 1u);
}

}  // namespace
}  // namespace molkv
