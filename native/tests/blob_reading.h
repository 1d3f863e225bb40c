// Reads through the C functions, and compares with what was written.

#ifndef MOLKV_TESTS_BLOB_READING_H_
#define MOLKV_TESTS_BLOB_READING_H_

#include <gtest/gtest.h>

#include <cstdint>
#include <cstring>
#include <set>
#include <string>
#include <vector>

#include "example_blob.h"
#include "molkv/molkv.h"

namespace molkv_test {

struct Batch {
  Bytes rows;
  std::vector<uint32_t> index;
  size_t distinct = 0;
  molkv_status status = MOLKV_OK;
  std::string message;
};

inline Batch Read(molkv_blob* blob, const std::vector<int64_t>& ids) {
  molkv_blob_info info{};
  molkv_blob_get_info(blob, &info);
  Batch batch;
  batch.rows.resize(ids.size() * info.row_stride + 1, 0xEE);
  batch.index.resize(ids.size(), 77);
  molkv_error error{};
  batch.status = molkv_blob_read(blob, ids.data(), ids.size(), batch.rows.data(),
                                 batch.index.data(), &batch.distinct, &error);
  batch.message = error.message;
  EXPECT_EQ(batch.rows.back(), 0xEE) << "written past the end";
  return batch;
}

inline void ExpectRows(const ExampleBlob& example, const std::vector<int64_t>& ids,
                       const Batch& batch) {
  ASSERT_EQ(batch.status, MOLKV_OK) << batch.message;
  ASSERT_EQ(batch.distinct, std::set<int64_t>(ids.begin(), ids.end()).size());
  for (size_t token = 0; token < ids.size(); ++token) {
    ASSERT_LT(batch.index[token], batch.distinct);
    const uint8_t* row = batch.rows.data() + batch.index[token] * example.row_stride;
    const Bytes& wanted = example.rows[static_cast<size_t>(ids[token])];
    ASSERT_EQ(std::memcmp(row, wanted.data(), wanted.size()), 0) << "token id " << ids[token];
  }
}

inline molkv_blob_stats StatsOf(const molkv_blob* blob) {
  molkv_blob_stats stats{};
  molkv_blob_get_stats(blob, &stats);
  return stats;
}

}  // namespace molkv_test

#endif  // MOLKV_TESTS_BLOB_READING_H_
