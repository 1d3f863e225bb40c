// The dense graph on ONNX Runtime.

#ifndef MOLKV_RUNNER_ONNX_GRAPH_H_
#define MOLKV_RUNNER_ONNX_GRAPH_H_

#include <cstdlib>
#include <memory>
#include <string>
#include <vector>

#include "dense_graph.h"
#include "expert_planes.h"
#include "onnx_graph_file.h"
#include "onnx_runtime.h"

namespace molkv::runner {

// The cache is allocated once for the whole context and given to the graph as past and present
// both, so that a step appends to it in place. One binding and its buffers serve every decode step.
class OnnxGraph : public DenseGraph {
 public:
  // `library` is a libonnxruntime, or empty (see OnnxRuntime). Throws RunnerError.
  OnnxGraph(const std::string& library, const OnnxGraphOptions& options, const Manifest& manifest);

  const float* Run(const NewTokens& tokens, int64_t position, const molkv_window* window,
                   const std::vector<int64_t>& logits_index) override;

 private:
  struct FreeMemory {
    void operator()(void* memory) const { std::free(memory); }
  };

  // What the graph reads and writes in a step of one shape, bound to it.
  struct Step {
    std::vector<int64_t> token_ids;
    std::vector<float> embeddings;  // instead of token_ids, if the graph takes them
    std::vector<int64_t> logits_index;
    int64_t position = 0;
    std::vector<float> logits;
    OrtHandle<ort::OrtIoBinding> binding;
  };

  // An input that shows a plane of the window.
  struct PlaneInput {
    ExpertPlane plane;
    ort::ONNXTensorElementDataType type;
  };

  void AllocateCache(const std::string& precision);
  std::unique_ptr<Step> MakeStep(size_t tokens, size_t logits_rows);
  void BindCache(ort::OrtIoBinding* binding);
  void BindPlanes(ort::OrtIoBinding* binding, const molkv_window& window);
  void BindInput(ort::OrtIoBinding* binding, const std::string& name, const ort::OrtValue* value);
  void BindOutput(ort::OrtIoBinding* binding, const std::string& name, const ort::OrtValue* value);

  OnnxRuntime runtime_;  // first: all else is made with it
  std::string file_;
  std::string cannot_run_;  // the start of a message
  OrtHandle<ort::OrtSession> session_;
  OrtHandle<ort::OrtRunOptions> run_options_;
  std::vector<int64_t> cache_shape_;
  ort::ONNXTensorElementDataType cache_type_;
  size_t cache_bytes_ = 0;
  std::vector<std::unique_ptr<void, FreeMemory>> cache_;  // key and value of each layer
  std::vector<PlaneInput> planes_;
  bool takes_embeddings_ = false;
  int64_t expert_start_ = 0;
  std::unique_ptr<Step> decode_;
  std::unique_ptr<Step> prefill_;  // of the last shape
};

}  // namespace molkv::runner

#endif  // MOLKV_RUNNER_ONNX_GRAPH_H_
