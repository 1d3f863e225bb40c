#include "row_cache.h"

#include <cstring>
#include <iterator>
#include <utility>

namespace molkv {

RowCache::RowCache(uint64_t bytes, uint64_t row_stride)
    : row_stride_(row_stride),
      capacity_(static_cast<size_t>(bytes / (row_stride + kEntryOverhead))) {}

bool RowCache::Find(int64_t token_id, uint8_t* target) {
  Row row;
  {
    std::lock_guard<std::mutex> lock(mutex_);
    const auto place = places_.find(token_id);
    if (place == places_.end()) {
      return false;
    }
    entries_.splice(entries_.begin(), entries_, place->second);
    row = place->second->row;
  }
  std::memcpy(target, row.get(), row_stride_);
  return true;
}

void RowCache::Insert(int64_t token_id, const uint8_t* row) {
  if (capacity_ == 0) {
    return;
  }
  std::unique_ptr<uint8_t[]> copy(new uint8_t[row_stride_]);
  std::memcpy(copy.get(), row, row_stride_);
  std::list<Entry> added;
  added.push_back({token_id, Row(std::move(copy))});
  std::list<Entry> dropped;  // freed after the lock
  std::lock_guard<std::mutex> lock(mutex_);
  // Another thread may have read the same row in the meantime.
  const auto [place, is_new] = places_.emplace(token_id, added.begin());
  if (!is_new) {
    return;
  }
  entries_.splice(entries_.begin(), added);
  if (entries_.size() > capacity_) {
    places_.erase(entries_.back().token_id);
    dropped.splice(dropped.begin(), entries_, std::prev(entries_.end()));
  }
}

size_t RowCache::size() const {
  std::lock_guard<std::mutex> lock(mutex_);
  return entries_.size();
}

}  // namespace molkv
