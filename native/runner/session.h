// One sequence running through a bundle, rows read by token id as it goes.

#ifndef MOLKV_RUNNER_SESSION_H_
#define MOLKV_RUNNER_SESSION_H_

#include <cstddef>
#include <cstdint>
#include <functional>
#include <vector>

#include "dense_graph.h"
#include "molkv_handles.h"
#include "statistics.h"

namespace molkv::runner {

// Ties the parts together: blob to window to graph. Functions throw RunnerError.
class Session {
 public:
  // `blob` is null where the model has no experts; it and the graph must outlive the session.
  // `chunk` is the most tokens that prefill runs at once; the graph may take fewer.
  Session(DenseGraph& graph, molkv_blob* blob, size_t chunk);

  const ModelEntry& model() const { return graph_.model(); }
  // Tokens that the sequence has, and the most that it may have.
  size_t position() const { return position_; }
  size_t context() const { return static_cast<size_t>(model().max_position_embeddings); }
  size_t chunk() const { return chunk_; }
  Statistics statistics() const;

  // Starts a new sequence.
  void Reset();

  // Appends tokens in chunks; while the graph runs one, the rows of the next are read. Returns the
  // logits [V] after the last, overwritten by the next call.
  const float* Prefill(const std::vector<int64_t>& token_ids);

  // Appends one token: one row is read, one position computed. Returns the logits [V] after it,
  // overwritten by the next call.
  const float* Step(int64_t token_id);

  // Appends tokens as Prefill does, and hands out the logits of every one: float32 [rows, V], chunk
  // by chunk.
  void EveryLogits(const std::vector<int64_t>& token_ids,
                   const std::function<void(const float* logits, size_t rows)>& take);

  // Time from a prompt's ids to its first token, for the statistics.
  void SetTimeToFirstToken(double seconds) { statistics_.time_to_first_token_ms = 1e3 * seconds; }

 private:
  // Some of the new tokens' ids, whose rows are perhaps being read already.
  struct Chunk {
    const int64_t* token_ids;
    size_t count;
    MolkvHandle<molkv_prefetch> rows;
  };

  void CheckIds(const int64_t* token_ids, size_t count) const;
  // What the graph takes for tokens whose rows were read.
  NewTokens Tokens(const int64_t* token_ids, size_t count, const uint8_t* rows,
                   const uint32_t* index);
  Chunk StartChunk(const std::vector<int64_t>& token_ids, size_t first);
  NewTokens AppendRows(const Chunk& chunk);
  void RunChunks(const std::vector<int64_t>& token_ids, bool every,
                 const std::function<void(const float* logits, size_t rows)>& take);

  DenseGraph& graph_;
  molkv_blob* blob_;
  size_t chunk_;
  MolkvHandle<molkv_window> window_;
  uint64_t row_stride_ = 0;
  std::vector<uint8_t> row_;       // of a single step
  std::vector<float> embeddings_;  // of the new tokens, if rows carry them
  size_t position_ = 0;
  Statistics statistics_;
  molkv_blob_stats reads_before_ = {};
};

}  // namespace molkv::runner

#endif  // MOLKV_RUNNER_SESSION_H_
