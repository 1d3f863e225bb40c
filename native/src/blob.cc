#include "blob.h"

#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cinttypes>
#include <cstdio>
#include <cstring>
#include <numeric>
#include <utility>

#include "attention_half.h"
#include "crc32c.h"
#include "error.h"

namespace molkv {
namespace {

constexpr char kDamagedRow[] = "the file is damaged: copy the bundle again or export it again";

std::vector<Shard> Arranged(std::vector<Shard> shards) {
  ArrangeShards(shards);
  return shards;
}

std::unique_ptr<RowCache> MakeCache(const BlobOptions& options, const std::string& name,
                                    uint64_t row_stride) {
  if (options.cache_bytes == 0 || options.resident) {
    return nullptr;
  }
  auto cache = std::make_unique<RowCache>(options.cache_bytes, row_stride);
  if (cache->capacity() == 0) {
    throw Error(MOLKV_INVALID_ARGUMENT,
                name + ": cache_bytes is " + std::to_string(options.cache_bytes) +
                    ", but one row takes " + std::to_string(row_stride + RowCache::kEntryOverhead) +
                    " (pass at least that, or 0 for no cache)");
  }
  return cache;
}

// Adds the time that it exists for.
class Stopwatch {
 public:
  explicit Stopwatch(std::atomic<uint64_t>* total) : total_(total) {}
  ~Stopwatch() {
    const auto elapsed = std::chrono::steady_clock::now() - started_;
    total_->fetch_add(static_cast<uint64_t>(
        std::chrono::duration_cast<std::chrono::nanoseconds>(elapsed).count()));
  }

 private:
  std::atomic<uint64_t>* total_;
  std::chrono::steady_clock::time_point started_ = std::chrono::steady_clock::now();
};

void RequireMemoryFor(uint64_t bytes, const std::string& name) {
  const long pages = ::sysconf(_SC_PHYS_PAGES);
  const long page_size = ::sysconf(_SC_PAGESIZE);
  if (pages <= 0 || page_size <= 0) {
    return;
  }
  // Systems promise more memory than they have and end the program that takes it at its word.
  const uint64_t memory = static_cast<uint64_t>(pages) * static_cast<uint64_t>(page_size);
  if (bytes > memory) {
    throw Error(MOLKV_OUT_OF_MEMORY, name + ": mode is resident, but all rows have " +
                                         std::to_string(bytes) + " bytes and this machine has " +
                                         std::to_string(memory) + " (open it with mode storage)");
  }
}

}  // namespace

Blob::Blob(std::vector<Shard> shards, const BlobOptions& options)
    : shards_(Arranged(std::move(shards))),
      options_(options),
      layout_(RowLayout::Of(shards_[0].header.geometry, shards_[0].header.embedding_dtype,
                            shards_[0].header.row_stride, shards_[0].name)),
      cache_(MakeCache(options, shards_[0].name, layout_.row_stride)),
      pool_(options.readers) {
  if (options.resident) {
    LoadAllRows();
  } else {
    for (const Shard& shard : shards_) {
      shard.file.ExpectRandomReads();
    }
  }
}

molkv_blob_info Blob::info() const {
  const BlobHeader& header = shards_[0].header;
  molkv_blob_info info{};
  info.geometry = header.geometry;
  info.vocabulary_size = header.vocabulary_size;
  info.row_size = header.row_size;
  info.row_stride = header.row_stride;
  std::memcpy(info.identity, header.identity.data(), header.identity.size());
  return info;
}

molkv_blob_stats Blob::stats() const {
  return {reads_.load(), rows_.load(), bytes_.load(), cache_hits_.load(), nanoseconds_.load()};
}

ReadPlan Blob::Plan(const int64_t* token_ids, size_t count) const {
  ReadPlan plan;
  if (count == 0) {
    return plan;
  }
  const uint64_t vocabulary_size = shards_[0].header.vocabulary_size;
  const auto [least, most] = std::minmax_element(token_ids, token_ids + count);
  for (const int64_t extreme : {*least, *most}) {
    if (extreme < 0 || static_cast<uint64_t>(extreme) >= vocabulary_size) {
      throw Error(MOLKV_OUT_OF_RANGE,
                  "token id " + std::to_string(extreme) + " is outside the vocabulary, 0 to " +
                      std::to_string(vocabulary_size - 1) + " (use the tokenizer of this bundle)");
    }
  }
  plan.ids.assign(token_ids, token_ids + count);
  std::sort(plan.ids.begin(), plan.ids.end());
  plan.ids.erase(std::unique(plan.ids.begin(), plan.ids.end()), plan.ids.end());
  plan.index.resize(count);
  for (size_t token = 0; token < count; ++token) {
    const auto place = std::lower_bound(plan.ids.begin(), plan.ids.end(), token_ids[token]);
    plan.index[token] = static_cast<uint32_t>(place - plan.ids.begin());
  }
  return plan;
}

void Blob::Read(const std::vector<int64_t>& ids, uint8_t* rows) {
  const Stopwatch stopwatch(&nanoseconds_);
  const uint64_t stride = layout_.row_stride;
  if (resident_ != nullptr) {
    for (size_t place = 0; place < ids.size(); ++place) {
      std::memcpy(rows + place * stride,
                  resident_.get() + static_cast<uint64_t>(ids[place]) * stride, stride);
    }
    return;
  }
  std::vector<size_t> missing;
  missing.reserve(ids.size());
  for (size_t place = 0; place < ids.size(); ++place) {
    if (cache_ == nullptr || !cache_->Find(ids[place], rows + place * stride)) {
      missing.push_back(place);
    }
  }
  cache_hits_ += ids.size() - missing.size();
  pool_.Run(missing.size(), [&](size_t item) {
    const size_t place = missing[item];
    uint8_t* row = rows + place * stride;
    ReadRow(ids[place], row);
    if (cache_ != nullptr) {
      cache_->Insert(ids[place], row);
    }
  });
}

void Blob::Embeddings(const uint8_t* rows, const uint32_t* index, size_t count,
                      float* embeddings) const {
  if (layout_.embedding_size == 0) {
    throw Error(MOLKV_INVALID_ARGUMENT,
                shards_[0].name +
                    ": its rows carry no input embedding (run a graph that takes token ids, or "
                    "export with --embedding storage)");
  }
  const uint64_t size = shards_[0].header.geometry.value_size;
  for (size_t token = 0; token < count; ++token) {
    const uint8_t* stored = rows + index[token] * layout_.row_stride + layout_.embedding_offset;
    for (uint64_t place = 0; place < size; ++place) {
      Half element;  // rows are little-endian, and need not be aligned
      std::memcpy(&element.bits, stored + place * sizeof(element.bits), sizeof(element.bits));
      embeddings[token * size + place] = ToFloat(element);
    }
  }
}

const Shard& Blob::ShardOf(int64_t token_id) const {
  const auto after = std::upper_bound(
      shards_.begin(), shards_.end(), static_cast<uint64_t>(token_id),
      [](uint64_t row, const Shard& shard) { return row < shard.header.first_row; });
  return *(after - 1);
}

void Blob::LoadAllRows() {
  // Bounded by the files' own length: every file was found long enough for all of its rows.
  const uint64_t vocabulary_size = shards_[0].header.vocabulary_size;
  const uint64_t bytes = vocabulary_size * layout_.row_stride;
  RequireMemoryFor(bytes, shards_[0].name);
  AlignedBuffer rows = MakeAlignedBuffer(bytes);
  pool_.Run(static_cast<size_t>(vocabulary_size), [&](size_t row) {
    ReadRow(static_cast<int64_t>(row), rows.get() + row * layout_.row_stride);
  });
  resident_ = std::move(rows);
  reads_ = 0;
  rows_ = 0;
  bytes_ = 0;
}

void Blob::ReadRow(int64_t token_id, uint8_t* target) {
  const Shard& shard = ShardOf(token_id);
  const uint64_t stride = layout_.row_stride;
  const uint64_t position = shard.RowPosition(token_id);
  const ReadResult result = ReadRowBytes(shard, position, target);
  const auto place = [&] {
    return shard.name + ": row of token id " + std::to_string(token_id) + " at byte " +
           std::to_string(position);
  };
  if (result.error != 0) {
    throw Error(MOLKV_CORRUPT_ROW, place() + " cannot be read: " + SystemMessage(result.error) +
                                       " (check the storage, then copy the bundle again)");
  }
  if (result.filled < stride) {
    throw Error(MOLKV_CORRUPT_ROW, place() + " has " + std::to_string(result.filled) +
                                       " bytes left of " + std::to_string(stride) +
                                       ": the file was cut while open (" + kDamagedRow + ")");
  }
  if (options_.verify_rows) {
    VerifyRow(shard, token_id, target);
  }
  reads_ += result.calls;
  rows_ += 1;
  bytes_ += stride;
}

ReadResult Blob::ReadRowBytes(const Shard& shard, uint64_t position, uint8_t* target) const {
  const uint64_t stride = layout_.row_stride;
  const int descriptor = shard.file.descriptor();
  if (!options_.direct_io || reinterpret_cast<uintptr_t>(target) % kBufferAlignment == 0) {
    return ReadAt(descriptor, target, stride, position);
  }
  const AlignedBuffer buffer = MakeAlignedBuffer(stride);
  const ReadResult result = ReadAt(descriptor, buffer.get(), stride, position);
  std::memcpy(target, buffer.get(), result.filled);
  return result;
}

void Blob::VerifyRow(const Shard& shard, int64_t token_id, const uint8_t* row) const {
  const uint64_t covered = layout_.row_size - kRowChecksumSize;
  uint32_t stored = 0;
  for (uint64_t i = 0; i < kRowChecksumSize; ++i) {
    stored |= static_cast<uint32_t>(row[covered + i]) << (8 * i);
  }
  const uint32_t computed = Crc32c(row, covered);
  if (stored != computed) {
    char text[96];
    std::snprintf(text, sizeof(text),
                  ": stored CRC32C is 0x%08" PRIx32 ", but the row's bytes give 0x%08" PRIx32,
                  stored, computed);
    throw Error(MOLKV_CORRUPT_ROW, shard.name + ": row of token id " + std::to_string(token_id) +
                                       text + " (" + kDamagedRow + ")");
  }
}

}  // namespace molkv
