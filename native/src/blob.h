// Reads expert rows by token id, one positional read a row (docs/format.md, "Reading").

#ifndef MOLKV_SRC_BLOB_H_
#define MOLKV_SRC_BLOB_H_

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "aligned_buffer.h"
#include "molkv/molkv.h"
#include "reader_pool.h"
#include "row_cache.h"
#include "row_layout.h"
#include "shard.h"

namespace molkv {

struct BlobOptions {
  uint32_t readers = 4;
  bool verify_rows = true;
  bool resident = false;
  bool direct_io = false;
  uint64_t cache_bytes = 0;  // without effect on a resident blob, whose rows are all in memory
};

// What one read fetches.
struct ReadPlan {
  std::vector<int64_t> ids;     // distinct, ascending
  std::vector<uint32_t> index;  // for each token, the place of its row
};

// An open expert blob of one or several files. Files are never mapped: if another program cut a
// mapped file, this one would crash. All functions may be called from any thread.
class Blob {
 public:
  // `shards` are all of the blob's, in any order.
  Blob(std::vector<Shard> shards, const BlobOptions& options);
  Blob(const Blob&) = delete;
  Blob& operator=(const Blob&) = delete;

  molkv_blob_info info() const;

  // Resident rows are read before counting begins, so a resident blob counts nothing but time.
  molkv_blob_stats stats() const;

  uint64_t row_stride() const { return layout_.row_stride; }
  uint32_t embedding_dtype() const { return shards_[0].header.embedding_dtype; }
  ReaderPool& pool() { return pool_; }

  // Checks every id; nothing is read.
  ReadPlan Plan(const int64_t* token_ids, size_t count) const;

  // Fills `rows` with the rows of a plan's ids, row_stride bytes each. On an error the contents of
  // `rows` are unspecified.
  void Read(const std::vector<int64_t>& ids, uint8_t* rows);

  // The input embeddings of tokens, [count, value_size], from rows that were read.
  void Embeddings(const uint8_t* rows, const uint32_t* index, size_t count,
                  float* embeddings) const;

 private:
  const Shard& ShardOf(int64_t token_id) const;
  void LoadAllRows();
  void ReadRow(int64_t token_id, uint8_t* target);
  ReadResult ReadRowBytes(const Shard& shard, uint64_t position, uint8_t* target) const;
  void VerifyRow(const Shard& shard, int64_t token_id, const uint8_t* row) const;

  std::vector<Shard> shards_;
  BlobOptions options_;
  RowLayout layout_;
  std::unique_ptr<RowCache> cache_;  // NULL without one
  AlignedBuffer resident_;           // all rows, or NULL
  std::atomic<uint64_t> reads_{0};
  std::atomic<uint64_t> rows_{0};
  std::atomic<uint64_t> bytes_{0};
  std::atomic<uint64_t> cache_hits_{0};
  std::atomic<uint64_t> nanoseconds_{0};
  // Last, so that its threads are gone before what they use.
  ReaderPool pool_;
};

}  // namespace molkv

#endif  // MOLKV_SRC_BLOB_H_
