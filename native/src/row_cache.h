// Rows that were read before, kept within a bound of memory.

#ifndef MOLKV_SRC_ROW_CACHE_H_
#define MOLKV_SRC_ROW_CACHE_H_

#include <cstddef>
#include <cstdint>
#include <list>
#include <memory>
#include <mutex>
#include <unordered_map>

namespace molkv {

// Keeps the rows that were used last. All functions may be called from any thread.
class RowCache {
 public:
  // What an entry takes beside its row: list and map nodes, counters, allocation headers.
  static constexpr uint64_t kEntryOverhead = 192;

  // Room for as many rows as fit in `bytes`, possibly none.
  RowCache(uint64_t bytes, uint64_t row_stride);

  // Copies a row to `target`; false if it is not here.
  bool Find(int64_t token_id, uint8_t* target);

  // Keeps a copy of a row, in place of the one that was not used for longest if there is no room.
  void Insert(int64_t token_id, const uint8_t* row);

  size_t capacity() const { return capacity_; }
  size_t size() const;

 private:
  // Shared, so that a reader can copy a row without holding up the others while it is dropped.
  using Row = std::shared_ptr<const uint8_t[]>;
  struct Entry {
    int64_t token_id;
    Row row;
  };

  const uint64_t row_stride_;
  const size_t capacity_;
  mutable std::mutex mutex_;
  std::list<Entry> entries_;  // the one used last comes first
  std::unordered_map<int64_t, std::list<Entry>::iterator> places_;
};

}  // namespace molkv

#endif  // MOLKV_SRC_ROW_CACHE_H_
