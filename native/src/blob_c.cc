// The C functions of the expert blob and of prefetching.

#include <algorithm>
#include <cstring>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "blob.h"
#include "error.h"
#include "molkv/molkv.h"
#include "prefetch.h"

struct molkv_blob final : molkv::Blob {
  using Blob::Blob;
};

struct molkv_prefetch final : molkv::Prefetch {
  using Prefetch::Prefetch;
};

namespace molkv {
namespace {

constexpr uint32_t kMaximumReaders = 64;

void Require(bool holds, const char* message) {
  if (!holds) {
    throw Error(MOLKV_INVALID_ARGUMENT, message);
  }
}

// Field by field, as a caller may be older or newer than this library.
molkv_blob_options KnownOptions(const molkv_blob_options& given) {
  Require(given.struct_size >= sizeof(molkv_blob_options) && given.struct_size <= 4096,
          "options: struct_size must be the size of molkv_blob_options (set it with sizeof)");
  const auto* bytes = reinterpret_cast<const uint8_t*>(&given);
  if (std::any_of(bytes + sizeof(molkv_blob_options), bytes + given.struct_size,
                  [](uint8_t byte) { return byte != 0; })) {
    throw Error(MOLKV_UNSUPPORTED,
                "options: a field is set that this library does not know (update molkv)");
  }
  return given;
}

BlobOptions ReadOptions(const molkv_blob_options* given) {
  BlobOptions options;
  if (given == nullptr) {
    return options;
  }
  const molkv_blob_options known = KnownOptions(*given);
  Require(known.readers <= kMaximumReaders, "options: readers must be 1 to 64, or 0 for 4");
  Require(known.skip_verify <= 1, "options: skip_verify must be 0 or 1");
  Require(known.direct_io <= 1, "options: direct_io must be 0 or 1");
  Require(known.mode == MOLKV_STORAGE || known.mode == MOLKV_RESIDENT,
          "options: mode must be MOLKV_STORAGE or MOLKV_RESIDENT");
  options.readers = known.readers == 0 ? options.readers : known.readers;
  options.verify_rows = known.skip_verify == 0;
  options.resident = known.mode == MOLKV_RESIDENT;
  options.direct_io = known.direct_io == 1;
  options.cache_bytes = known.cache_bytes;
  return options;
}

}  // namespace
}  // namespace molkv

extern "C" {

molkv_status molkv_blob_open(const char* const* paths, size_t path_count,
                             const molkv_blob_options* options, molkv_blob** blob,
                             molkv_error* error) {
  return molkv::Guard(error, [&] {
    molkv::Require(blob != nullptr, "blob is NULL (pass where to put the handle)");
    molkv::Require(paths != nullptr && path_count > 0,
                   "expert blob: the list of files is empty (pass its shards)");
    molkv::Require(path_count <= molkv::kMaximumShards,
                   "expert blob: the list has more files than a blob may (pass its shards)");
    const molkv::BlobOptions known = molkv::ReadOptions(options);
    std::vector<molkv::Shard> shards;
    for (size_t i = 0; i < path_count; ++i) {
      molkv::Require(paths[i] != nullptr, "expert blob: a path is NULL (pass its shards)");
      shards.push_back(molkv::OpenShard(paths[i], known.direct_io));
    }
    *blob = std::make_unique<molkv_blob>(std::move(shards), known).release();
  });
}

molkv_status molkv_blob_open_descriptor(int descriptor, uint64_t offset, uint64_t length,
                                        const molkv_blob_options* options, molkv_blob** blob,
                                        molkv_error* error) {
  return molkv::Guard(error, [&] {
    molkv::Require(blob != nullptr, "blob is NULL (pass where to put the handle)");
    const molkv::BlobOptions known = molkv::ReadOptions(options);
    std::vector<molkv::Shard> shards;
    shards.push_back(molkv::OpenShardInside(descriptor, offset, length, known.direct_io));
    *blob = std::make_unique<molkv_blob>(std::move(shards), known).release();
  });
}

void molkv_blob_close(molkv_blob* blob) { delete blob; }

void molkv_blob_get_info(const molkv_blob* blob, molkv_blob_info* info) {
  if (blob != nullptr && info != nullptr) {
    *info = blob->info();
  }
}

void molkv_blob_get_stats(const molkv_blob* blob, molkv_blob_stats* stats) {
  if (blob != nullptr && stats != nullptr) {
    *stats = blob->stats();
  }
}

molkv_status molkv_blob_read(molkv_blob* blob, const int64_t* token_ids, size_t count,
                             uint8_t* rows, uint32_t* index, size_t* distinct, molkv_error* error) {
  return molkv::Guard(error, [&] {
    molkv::Require(blob != nullptr && distinct != nullptr, "blob or distinct is NULL");
    molkv::Require(count == 0 || (token_ids != nullptr && rows != nullptr && index != nullptr),
                   "token_ids, rows or index is NULL");
    const molkv::ReadPlan plan = blob->Plan(token_ids, count);
    blob->Read(plan.ids, rows);
    std::copy(plan.index.begin(), plan.index.end(), index);
    *distinct = plan.ids.size();
  });
}

uint32_t molkv_blob_embedding_dtype(const molkv_blob* blob) {
  return blob != nullptr ? blob->embedding_dtype() : static_cast<uint32_t>(MOLKV_NONE);
}

molkv_status molkv_blob_embeddings(const molkv_blob* blob, const uint8_t* rows,
                                   const uint32_t* index, size_t count, float* embeddings,
                                   molkv_error* error) {
  return molkv::Guard(error, [&] {
    molkv::Require(blob != nullptr, "blob is NULL");
    molkv::Require(count == 0 || (rows != nullptr && index != nullptr && embeddings != nullptr),
                   "rows, index or embeddings is NULL");
    blob->Embeddings(rows, index, count, embeddings);
  });
}

molkv_status molkv_prefetch_start(molkv_blob* blob, const int64_t* token_ids, size_t count,
                                  molkv_prefetch** prefetch, molkv_error* error) {
  return molkv::Guard(error, [&] {
    molkv::Require(blob != nullptr && prefetch != nullptr, "blob or prefetch is NULL");
    molkv::Require(count == 0 || token_ids != nullptr, "token_ids is NULL");
    *prefetch = std::make_unique<molkv_prefetch>(*blob, token_ids, count).release();
  });
}

molkv_status molkv_prefetch_wait(molkv_prefetch* prefetch, const uint8_t** rows,
                                 const uint32_t** index, size_t* distinct, molkv_error* error) {
  return molkv::Guard(error, [&] {
    molkv::Require(
        prefetch != nullptr && rows != nullptr && index != nullptr && distinct != nullptr,
        "prefetch, rows, index or distinct is NULL");
    prefetch->Wait();
    *rows = prefetch->rows();
    *index = prefetch->index().data();
    *distinct = prefetch->distinct();
  });
}

void molkv_prefetch_free(molkv_prefetch* prefetch) { delete prefetch; }

}  // extern "C"
