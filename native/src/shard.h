// One open file of an expert blob, and what makes several of them one (docs/format.md, "Shards").

#ifndef MOLKV_SRC_SHARD_H_
#define MOLKV_SRC_SHARD_H_

#include <cstdint>
#include <string>
#include <vector>

#include "blob_header.h"
#include "file.h"

namespace molkv {

// A validated file: its length is what its header says.
struct Shard {
  File file;
  uint64_t start;  // where the blob begins in the file
  std::string name;
  BlobHeader header;

  // Byte position in the file of a token's row.
  uint64_t RowPosition(int64_t token_id) const {
    return start + header.data_offset +
           (static_cast<uint64_t>(token_id) - header.first_row) * header.row_stride;
  }
};

// With `direct_io`, rows are read past the page cache, or it is an error.
Shard OpenShard(const std::string& path, bool direct_io);

// The blob that lies at `offset` inside an open file; the descriptor stays the caller's.
Shard OpenShardInside(int descriptor, uint64_t offset, uint64_t length, bool direct_io);

// Puts shards in order of their index and throws unless they form one whole blob.
void ArrangeShards(std::vector<Shard>& shards);

}  // namespace molkv

#endif  // MOLKV_SRC_SHARD_H_
