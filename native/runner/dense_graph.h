// A loaded dense graph with its self-attention cache (docs/graph.md, "Inputs and outputs").

#ifndef MOLKV_RUNNER_DENSE_GRAPH_H_
#define MOLKV_RUNNER_DENSE_GRAPH_H_

#include <cstddef>
#include <cstdint>
#include <vector>

#include "manifest.h"
#include "molkv/molkv.h"

namespace molkv::runner {

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

  // Computes logits for some of `count` new tokens. Throws RunnerError.
  //
  // token_ids:     [count], at most chunk() of them
  // position:      absolute position of the first; position + count is at most the context
  // window:        with the new tokens' rows appended; null without experts
  // logits_index:  which of the new tokens get logits, each 0 to count - 1
  //
  // Returns float32 [logits_index.size(), V], overwritten by the next call.
  virtual const float* Run(const int64_t* token_ids, size_t count, int64_t position,
                           const molkv_window* window,
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
