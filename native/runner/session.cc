#include "session.h"

#include <algorithm>
#include <numeric>
#include <string>
#include <utility>

#include "runner_error.h"

namespace molkv::runner {

Session::Session(DenseGraph& graph, molkv_blob* blob, size_t chunk)
    : graph_(graph), blob_(blob), chunk_(std::min({chunk, context(), graph.chunk()})) {
  if (blob_ == nullptr) return;
  molkv_blob_info info;
  molkv_blob_get_info(blob_, &info);
  molkv_blob_get_stats(blob_, &reads_before_);
  row_stride_ = info.row_stride;
  row_.resize(info.row_stride);
  if (molkv_blob_embedding_dtype(blob_) != MOLKV_NONE) {
    embeddings_.resize(chunk_ * info.geometry.value_size);
  }
  window_ = MakeMolkv<molkv_window>(molkv_window_create, &info.geometry,
                                    static_cast<uint32_t>(model().expert_window),
                                    static_cast<uint32_t>(chunk_));
  statistics_.window_bytes = molkv_window_bytes(window_.get());
}

Statistics Session::statistics() const {
  Statistics statistics = statistics_;
  if (blob_ != nullptr) {
    molkv_blob_stats reads;
    molkv_blob_get_stats(blob_, &reads);
    statistics.rows_read = reads.rows - reads_before_.rows;
    statistics.bytes_read = reads.bytes - reads_before_.bytes;
  }
  return statistics;
}

void Session::Reset() {
  // The self-attention cache needs no clearing: only positions before the current one are read.
  position_ = 0;
  if (window_ != nullptr) molkv_window_reset(window_.get());
}

const float* Session::Prefill(const std::vector<int64_t>& token_ids) {
  const float* last = nullptr;
  RunChunks(token_ids, /*every=*/false, [&](const float* logits, size_t) { last = logits; });
  return last;
}

const float* Session::Step(int64_t token_id) {
  CheckIds(&token_id, 1);
  const Stopwatch step(&statistics_.decode_seconds);
  NewTokens tokens = {&token_id, 1, nullptr};
  if (blob_ != nullptr) {
    const Stopwatch lookup(&statistics_.lookup_seconds);
    const int64_t* ids = &token_id;
    uint32_t index = 0;
    size_t distinct = 0;
    CallMolkv(molkv_blob_read, blob_, ids, size_t{1}, row_.data(), &index, &distinct);
    CallMolkv(molkv_window_append, window_.get(), row_.data(), row_stride_, &index, size_t{1});
    tokens = Tokens(&token_id, 1, row_.data(), &index);
  }
  static const std::vector<int64_t> kOnlyRow = {0};
  const double engine_before = graph_.engine_seconds();
  const float* logits =
      graph_.Run(tokens, static_cast<int64_t>(position_), window_.get(), kOnlyRow);
  statistics_.decode_engine_seconds += graph_.engine_seconds() - engine_before;
  ++position_;
  ++statistics_.decode_tokens;
  return logits;
}

void Session::EveryLogits(const std::vector<int64_t>& token_ids,
                          const std::function<void(const float* logits, size_t rows)>& take) {
  RunChunks(token_ids, /*every=*/true, take);
}

void Session::RunChunks(const std::vector<int64_t>& token_ids, bool every,
                        const std::function<void(const float* logits, size_t rows)>& take) {
  CheckIds(token_ids.data(), token_ids.size());
  std::vector<int64_t> logits_index;
  Chunk next = StartChunk(token_ids, 0);
  for (size_t first = 0; first < token_ids.size(); first += chunk_) {
    const float* logits = nullptr;
    {
      const Stopwatch prefill(&statistics_.prefill_seconds);
      const Chunk current = std::move(next);
      const NewTokens tokens = AppendRows(current);
      next = StartChunk(token_ids, first + current.count);
      logits_index.resize(every ? current.count : 1);
      std::iota(logits_index.begin(), logits_index.end(), every ? 0 : current.count - 1);
      logits = graph_.Run(tokens, static_cast<int64_t>(position_), window_.get(), logits_index);
      position_ += current.count;
      statistics_.prefill_tokens += current.count;
    }
    take(logits, logits_index.size());
  }
}

Session::Chunk Session::StartChunk(const std::vector<int64_t>& token_ids, size_t first) {
  Chunk chunk = {token_ids.data() + first, std::min(chunk_, token_ids.size() - first), nullptr};
  if (blob_ != nullptr && chunk.count > 0) {
    const Stopwatch lookup(&statistics_.lookup_seconds);
    chunk.rows =
        MakeMolkv<molkv_prefetch>(molkv_prefetch_start, blob_, chunk.token_ids, chunk.count);
  }
  return chunk;
}

NewTokens Session::AppendRows(const Chunk& chunk) {
  if (blob_ == nullptr) return {chunk.token_ids, chunk.count, nullptr};
  const Stopwatch lookup(&statistics_.lookup_seconds);
  const uint8_t* rows = nullptr;
  const uint32_t* index = nullptr;
  size_t distinct = 0;
  CallMolkv(molkv_prefetch_wait, chunk.rows.get(), &rows, &index, &distinct);
  CallMolkv(molkv_window_append, window_.get(), rows, row_stride_, index, chunk.count);
  return Tokens(chunk.token_ids, chunk.count, rows, index);
}

NewTokens Session::Tokens(const int64_t* token_ids, size_t count, const uint8_t* rows,
                          const uint32_t* index) {
  if (embeddings_.empty()) return {token_ids, count, nullptr};
  CallMolkv(molkv_blob_embeddings, blob_, rows, index, count, embeddings_.data());
  return {token_ids, count, embeddings_.data()};
}

void Session::CheckIds(const int64_t* token_ids, size_t count) const {
  if (count == 0) throw RunnerError("the prompt is empty", "give at least one token");
  const size_t room = context() - position_;
  if (count > room) {
    throw RunnerError(std::to_string(count) + " tokens do not fit: " + std::to_string(position_) +
                          " of the context's " + std::to_string(context()) + " are taken",
                      "shorten the prompt to " + std::to_string(room) + " tokens");
  }
  for (size_t i = 0; i < count; ++i) {
    if (token_ids[i] >= 0 && token_ids[i] < model().vocab_size) continue;
    throw RunnerError("token id " + std::to_string(token_ids[i]) +
                          " is outside the vocabulary, 0 to " +
                          std::to_string(model().vocab_size - 1),
                      "use the tokenizer of this bundle");
  }
}

}  // namespace molkv::runner
