// The window against a model that keeps every row of every token and looks up what a step needs.

#include "window.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <random>
#include <string>
#include <vector>

#include "example_blob.h"

namespace molkv {
namespace {

using molkv_test::Bytes;
using molkv_test::ExampleBlob;

// A window beside the ids of all tokens that it has seen.
class Pair {
 public:
  Pair(const ExampleBlob& example, uint32_t window, uint32_t chunk)
      : example_(example), window_(window), chunk_(chunk) {
    const molkv_geometry geometry = example.Geometry();
    molkv_error error{};
    EXPECT_EQ(molkv_window_create(&geometry, window, chunk, &handle_, &error), MOLKV_OK)
        << error.message;
  }
  ~Pair() { molkv_window_free(handle_); }

  void Append(const std::vector<int64_t>& ids) {
    std::vector<int64_t> distinct = ids;
    std::sort(distinct.begin(), distinct.end());
    distinct.erase(std::unique(distinct.begin(), distinct.end()), distinct.end());
    Bytes rows;
    for (const int64_t id : distinct) {
      const Bytes& row = example_.rows[static_cast<size_t>(id)];
      rows.insert(rows.end(), row.begin(), row.end());
    }
    std::vector<uint32_t> index;
    for (const int64_t id : ids) {
      index.push_back(static_cast<uint32_t>(std::lower_bound(distinct.begin(), distinct.end(), id) -
                                            distinct.begin()));
    }
    molkv_error error{};
    ASSERT_EQ(molkv_window_append(handle_, rows.data(), example_.row_stride, index.data(),
                                  ids.size(), &error),
              MOLKV_OK)
        << error.message;
    shown_ = std::min<size_t>(seen_.size(), window_ - 1) + ids.size();
    seen_.insert(seen_.end(), ids.begin(), ids.end());
  }

  // The planes hold exactly the rows that the step reads, section by section.
  void ExpectPlanes() const {
    const RowLayout layout = RowLayout::Of(example_.Geometry(), "example");
    uint64_t first = 0;
    uint64_t last = 0;
    molkv_window_bounds(handle_, &first, &last);
    ASSERT_EQ(last - first, shown_);
    ASSERT_LE(last, window_ - 1 + std::max(chunk_, window_));
    for (uint32_t layer = 0; layer < example_.layers; ++layer) {
      for (const Section& section : layout.sections) {
        molkv_plane plane{};
        ASSERT_EQ(molkv_window_plane(handle_, layer, section.kind, &plane, nullptr), MOLKV_OK);
        ASSERT_EQ(plane.rows, shown_);
        ASSERT_EQ(plane.row_bytes, section.size);
        ASSERT_EQ(plane.dtype, section.dtype);
        for (size_t i = 0; i < shown_; ++i) {
          const int64_t id = seen_[seen_.size() - shown_ + i];
          const uint8_t* wanted = example_.rows[static_cast<size_t>(id)].data() +
                                  layer * layout.layer_size + section.offset;
          const auto* found = static_cast<const uint8_t*>(plane.data) + i * section.size;
          ASSERT_EQ(std::memcmp(found, wanted, section.size), 0)
              << "row " << i << " of layer " << layer << ", kind " << section.kind;
        }
      }
    }
  }

  void Reset() {
    molkv_window_reset(handle_);
    seen_.clear();
    shown_ = 0;
  }

  // Whether it was possible; if so, later appends must see the older rows again.
  bool Truncate(size_t count) {
    if (molkv_window_truncate(handle_, count, nullptr) != MOLKV_OK) {
      return false;
    }
    EXPECT_LE(count, seen_.size());
    seen_.resize(seen_.size() - count);
    uint64_t first = 0;
    uint64_t last = 0;
    molkv_window_bounds(handle_, &first, &last);
    shown_ = last - first;
    EXPECT_GE(shown_, std::min<size_t>(seen_.size(), window_ - 1));
    EXPECT_LE(shown_, seen_.size());
    return true;
  }

  void Fork(Pair* copy) const {
    molkv_window_free(copy->handle_);
    ASSERT_EQ(molkv_window_fork(handle_, &copy->handle_, nullptr), MOLKV_OK);
    copy->seen_ = seen_;
    copy->shown_ = shown_;
  }

  molkv_window* handle() const { return handle_; }
  size_t seen() const { return seen_.size(); }

 private:
  const ExampleBlob& example_;
  uint32_t window_;
  uint32_t chunk_;
  molkv_window* handle_ = nullptr;
  std::vector<int64_t> seen_;
  size_t shown_ = 0;
};

std::vector<int64_t> RandomIds(std::mt19937& random, size_t count) {
  std::vector<int64_t> ids(count);
  for (int64_t& id : ids) {
    id = random() % 19;
  }
  return ids;
}

TEST(WindowTest, PlanesHoldTheRowsOfTheStepAfterAnyAppends) {
  std::mt19937 random(11);
  for (const ExampleBlob& example :
       {ExampleBlob::Small(19), ExampleBlob::WithoutKeys(19), ExampleBlob::Large(19)}) {
    for (const uint32_t window : {1u, 2u, 5u, 8u}) {
      for (const uint32_t chunk : {1u, 3u, 8u, 13u}) {
        Pair pair(example, window, chunk);
        for (int step = 0; step < 60; ++step) {
          pair.Append(RandomIds(random, random() % (chunk + 1)));
          ASSERT_NO_FATAL_FAILURE(pair.ExpectPlanes());
          if (random() % 25 == 0) {
            pair.Reset();
          }
        }
      }
    }
  }
}

TEST(WindowTest, DecodingMovesRowsOnceInMaxOfChunkAndWindowTokens) {
  const ExampleBlob example = ExampleBlob::Small(19);
  for (const uint32_t window : {4u, 6u}) {
    for (const uint32_t chunk : {1u, 9u}) {
      Pair pair(example, window, chunk);
      uint64_t before = 0;
      int since = 0;
      int moves = 0;
      for (int token = 0; token < 100; ++token) {
        pair.Append({token % 19});
        uint64_t first = 0;
        uint64_t last = 0;
        molkv_window_bounds(pair.handle(), &first, &last);
        ++since;
        if (last <= before) {
          EXPECT_GE(since, static_cast<int>(std::max(window, chunk)));
          since = 0;
          ++moves;
        }
        before = last;
      }
      EXPECT_GT(moves, 0);
    }
  }
}

TEST(WindowTest, BytesAreTheSectionsTimesTheCapacity) {
  const ExampleBlob example = ExampleBlob::Small(19);
  const uint64_t row = 2 * (6 + 12 + 8 + 8);
  EXPECT_EQ(molkv_window_bytes(Pair(example, 8, 3).handle()), (7 + 8) * row);
  EXPECT_EQ(molkv_window_bytes(Pair(example, 8, 20).handle()), (7 + 20) * row);
}

TEST(WindowTest, TruncateThenAppendIsAsIfTheTokensHadNeverBeen) {
  std::mt19937 random(12);
  const ExampleBlob example = ExampleBlob::Small(19);
  int possible = 0;
  int impossible = 0;
  for (const uint32_t window : {1u, 2u, 5u, 8u}) {
    for (const uint32_t chunk : {1u, 4u, 16u}) {
      Pair pair(example, window, chunk);
      for (int step = 0; step < 300; ++step) {
        pair.Append(RandomIds(random, 1 + random() % chunk));
        ASSERT_NO_FATAL_FAILURE(pair.ExpectPlanes());
        if (random() % 3 == 0 && pair.seen() > 0) {
          const size_t count = random() % std::min<size_t>(pair.seen() + 1, 12);
          (pair.Truncate(count) ? possible : impossible) += 1;
          ASSERT_NO_FATAL_FAILURE(pair.ExpectPlanes());
        }
      }
    }
  }
  EXPECT_GT(possible, 100);
  EXPECT_GT(impossible, 20);
}

TEST(WindowTest, TruncateFailsExactlyWhenARowIsMissing) {
  const ExampleBlob example = ExampleBlob::Small(19);
  Pair pair(example, 4, 1);  // room for 7 rows
  for (int token = 0; token < 7; ++token) {
    pair.Append({token});
  }
  EXPECT_TRUE(pair.Truncate(0));
  pair.ExpectPlanes();
  EXPECT_TRUE(pair.Truncate(5)) << "nothing has been dropped yet";
  pair.ExpectPlanes();
  for (int token = 2; token < 8; ++token) {
    pair.Append({token});  // the last one moves tokens 4, 5 and 6 to the front
  }
  molkv_error error{};
  EXPECT_EQ(molkv_window_truncate(pair.handle(), 2, &error), MOLKV_OUT_OF_RANGE);
  EXPECT_NE(std::string(error.message).find("append the last 3 tokens' rows"), std::string::npos)
      << error.message;
  EXPECT_EQ(molkv_window_truncate(pair.handle(), 9, &error), MOLKV_OUT_OF_RANGE);
  EXPECT_NE(std::string(error.message).find("there are 8"), std::string::npos) << error.message;
  pair.ExpectPlanes();
  EXPECT_TRUE(pair.Truncate(1)) << "tokens 4, 5 and 6 are what token 7 attends";
  pair.ExpectPlanes();
}

TEST(WindowTest, AForkGoesItsOwnWay) {
  std::mt19937 random(13);
  const ExampleBlob example = ExampleBlob::Small(19);
  Pair original(example, 5, 3);
  Pair copy(example, 5, 3);
  for (int step = 0; step < 40; ++step) {
    original.Append(RandomIds(random, 1 + random() % 3));
    if (step % 7 == 3) {
      original.Fork(&copy);
    }
    copy.Append(RandomIds(random, 1 + random() % 3));
    ASSERT_NO_FATAL_FAILURE(original.ExpectPlanes());
    ASSERT_NO_FATAL_FAILURE(copy.ExpectPlanes());
  }
}

TEST(WindowTest, APlaneThatTheGeometryLacksIsNull) {
  const ExampleBlob example = ExampleBlob::WithoutKeys(19);
  Pair pair(example, 5, 3);
  pair.Append({1, 2});
  for (const molkv_plane_kind kind : {MOLKV_KEYS, MOLKV_KEY_SCALES, MOLKV_VALUE_SCALES}) {
    molkv_plane plane{};
    EXPECT_EQ(molkv_window_plane(pair.handle(), 0, kind, &plane, nullptr), MOLKV_OK);
    EXPECT_EQ(plane.data, nullptr);
    EXPECT_EQ(plane.dtype, uint32_t{MOLKV_NONE});
  }
}

TEST(WindowTest, ArgumentsThatCannotWorkAreRefused) {
  const ExampleBlob example = ExampleBlob::Small(19);
  const molkv_geometry geometry = example.Geometry();
  molkv_window* window = nullptr;
  molkv_error error{};
  EXPECT_EQ(molkv_window_create(&geometry, 0, 1, &window, &error), MOLKV_INVALID_ARGUMENT);
  EXPECT_EQ(molkv_window_create(&geometry, 1, 0, &window, &error), MOLKV_INVALID_ARGUMENT);
  EXPECT_EQ(molkv_window_create(nullptr, 1, 1, &window, &error), MOLKV_INVALID_ARGUMENT);
  molkv_geometry wrong = geometry;
  wrong.layers = 0;
  EXPECT_EQ(molkv_window_create(&wrong, 4, 1, &window, &error), MOLKV_INVALID_ARGUMENT);
  EXPECT_NE(std::string(error.message).find("layers is 0"), std::string::npos) << error.message;
  molkv_geometry largest = geometry;
  largest.layers = 1024;
  largest.experts = 4096;
  largest.value_size = 131072;
  largest.value_group_size = 131072;
  EXPECT_EQ(molkv_window_create(&largest, UINT32_MAX, UINT32_MAX, &window, &error),
            MOLKV_OUT_OF_MEMORY);
  EXPECT_EQ(window, nullptr);
  Pair pair(example, 4, 2);
  pair.Append({1, 2});
  const uint32_t index[3] = {0, 0, 0};
  EXPECT_EQ(molkv_window_append(pair.handle(), example.rows[0].data(), 128, index, 3, &error),
            MOLKV_OUT_OF_RANGE);
  EXPECT_EQ(molkv_window_append(pair.handle(), example.rows[0].data(), 64, index, 1, &error),
            MOLKV_INVALID_ARGUMENT);
  EXPECT_EQ(molkv_window_append(pair.handle(), nullptr, 128, index, 1, &error),
            MOLKV_INVALID_ARGUMENT);
  molkv_plane plane{};
  EXPECT_EQ(molkv_window_plane(pair.handle(), 2, MOLKV_VALUES, &plane, &error),
            MOLKV_INVALID_ARGUMENT);
  pair.ExpectPlanes();  // and nothing has changed
  molkv_window_free(nullptr);
}

}  // namespace
}  // namespace molkv
