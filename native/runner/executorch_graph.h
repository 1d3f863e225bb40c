// The dense graph on ExecuTorch (docs/executorch.md).

#ifndef MOLKV_RUNNER_EXECUTORCH_GRAPH_H_
#define MOLKV_RUNNER_EXECUTORCH_GRAPH_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "dense_graph.h"
#include "expert_planes.h"

namespace molkv::runner {

class ExecutorchProgram;

struct ExecutorchGraphOptions {
  std::string file;              // dense.pte
  int threads = 1;               // of the process's one ExecuTorch
  std::string operator_library;  // registers operators that are not linked in; empty: none
};

// The self-attention cache is the program's own memory, which its two methods share. The window is
// read where libmolkv keeps it, and logits are written where they are handed out.
class ExecutorchGraph : public DenseGraph {
 public:
  // Throws RunnerError if the program cannot be loaded, is another checkpoint's, or needs an
  // operator or a delegate that nobody registered.
  ExecutorchGraph(const ExecutorchGraphOptions& options, const Manifest& manifest);
  ~ExecutorchGraph() override;

  const float* Run(const NewTokens& tokens, int64_t position, const molkv_window* window,
                   const std::vector<int64_t>& logits_index) override;

 private:
  std::unique_ptr<ExecutorchProgram> program_;
  std::vector<ExpertPlane> planes_;
  std::vector<int64_t> token_ids_;
  std::vector<float> embeddings_;
  std::vector<int64_t> logits_index_;
  int64_t position_ = 0;
  int64_t expert_start_ = 0;
};

}  // namespace molkv::runner

#endif  // MOLKV_RUNNER_EXECUTORCH_GRAPH_H_
