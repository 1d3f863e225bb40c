// A loaded dense graph with its self-attention cache (docs/graph.md, "Inputs and outputs").

#ifndef MOLKV_RUNNER_DENSE_GRAPH_H_
#define MOLKV_RUNNER_DENSE_GRAPH_H_

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <string>
#include <vector>

#include "graph_file.h"
#include "manifest.h"
#include "molkv/molkv.h"
#include "onnx_runtime.h"

namespace molkv::runner {

// The cache is allocated once for the whole context and given to the graph as past and present
// both, so that a step appends to it in place. One binding and its buffers serve every decode step.
class DenseGraph {
 public:
  DenseGraph(const OnnxRuntime& runtime, const GraphOptions& options, const Manifest& manifest);

  const ModelEntry& model() const { return model_; }

  // Time inside the graph engine so far.
  double engine_seconds() const { return engine_seconds_; }

  // Computes logits for some of `count` new tokens. Throws RunnerError.
  //
  // token_ids:     [count]
  // position:      absolute position of the first; position + count is at most the context
  // window:        with the new tokens' rows appended; null without experts
  // logits_index:  which of the new tokens get logits, each 0 to count - 1
  //
  // Returns float32 [logits_index.size(), V], overwritten by the next call.
  const float* Run(const int64_t* token_ids, size_t count, int64_t position,
                   const molkv_window* window, const std::vector<int64_t>& logits_index);

 private:
  struct FreeMemory {
    void operator()(float* memory) const { std::free(memory); }
  };

  // What the graph reads and writes in a step of one shape, bound to it.
  struct Step {
    std::vector<int64_t> token_ids;
    std::vector<int64_t> logits_index;
    int64_t position = 0;
    std::vector<float> logits;
    OrtHandle<ort::OrtIoBinding> binding;
  };

  // An input that shows a plane of the window.
  struct PlaneInput {
    std::string name;
    uint32_t layer;
    molkv_plane_kind kind;
    ort::ONNXTensorElementDataType type;
    std::vector<int64_t> shape;  // the first dimension is the number of rows
  };

  void AllocateCache();
  void ListPlanes(const Manifest& manifest);
  std::unique_ptr<Step> MakeStep(size_t tokens, size_t logits_rows);
  void BindCache(ort::OrtIoBinding* binding);
  void BindPlanes(ort::OrtIoBinding* binding, const molkv_window& window);
  void BindInput(ort::OrtIoBinding* binding, const std::string& name, const ort::OrtValue* value);
  void BindOutput(ort::OrtIoBinding* binding, const std::string& name, const ort::OrtValue* value);

  const OnnxRuntime& runtime_;
  std::string file_;
  std::string cannot_run_;  // the start of a message
  ModelEntry model_;
  OrtHandle<ort::OrtSession> session_;
  OrtHandle<ort::OrtRunOptions> run_options_;
  std::vector<int64_t> cache_shape_;
  std::vector<std::unique_ptr<float, FreeMemory>> cache_;  // key and value of each layer
  std::vector<PlaneInput> planes_;
  int64_t expert_start_ = 0;
  double engine_seconds_ = 0;
  std::unique_ptr<Step> decode_;
  std::unique_ptr<Step> prefill_;  // of the last shape
};

}  // namespace molkv::runner

#endif  // MOLKV_RUNNER_DENSE_GRAPH_H_
