// A loaded dense graph with its self-attention cache (docs/graph.md, "Inputs and outputs").

#ifndef MOLKV_RUNNER_DENSE_GRAPH_H_
#define MOLKV_RUNNER_DENSE_GRAPH_H_

#include <cstddef>
#include <cstdint>
#include <vector>

#include "manifest.h"
#include "molkv/molkv.h"

namespace molkv::runner {

// The new tokens of a step. Where rows carry their embeddings, the graph takes these and not the
// ids.
struct NewTokens {
  const int64_t* ids = nullptr;       // [count]
  size_t count = 0;                   // at most the graph's chunk
  const float* embeddings = nullptr;  // [count, d], or null: the graph has the embedding
};

// One sequence at a time; a new one starts at position 0 without clearing anything. Each graph
// engine has an implementation, which backend.h chooses.
class DenseGraph {
 public:
  virtual ~DenseGraph() = default;
  DenseGraph(const DenseGraph&) = delete;
  DenseGraph& operator=(const DenseGraph&) = delete;

  const ModelEntry& model() const { return model_; }

  // The most new tokens of one Run.
  size_t chunk() const { return chunk_; }

  // Time inside the graph engine so far.
  double engine_seconds() const { return engine_seconds_; }

  // Computes logits for some of the new tokens. Throws RunnerError.
  //
  // position:      absolute position of the first; position + count is at most the context
  // window:        with the new tokens' rows appended; null without experts
  // logits_index:  which of the new tokens get logits, each 0 to count - 1
  //
  // Returns float32 [logits_index.size(), V], overwritten by the next call.
  virtual const float* Run(const NewTokens& tokens, int64_t position, const molkv_window* window,
                           const std::vector<int64_t>& logits_index) = 0;

 protected:
  DenseGraph(const ModelEntry& model, size_t chunk) : model_(model), chunk_(chunk) {}

  // For a Stopwatch around the engine's own call.
  double* engine_seconds_sum() { return &engine_seconds_; }

 private:
  ModelEntry model_;
  size_t chunk_;
  double engine_seconds_ = 0;
};

}  // namespace molkv::runner

#endif  // MOLKV_RUNNER_DENSE_GRAPH_H_
