// Loads a dense graph into ONNX Runtime and checks that it is the manifest's.

#ifndef MOLKV_RUNNER_ONNX_GRAPH_FILE_H_
#define MOLKV_RUNNER_ONNX_GRAPH_FILE_H_

#include <string>

#include "manifest.h"
#include "onnx_runtime.h"

namespace molkv::runner {

struct OnnxGraphOptions {
  std::string file;              // dense.onnx; its data lies beside it
  int threads = 1;               // of the graph engine
  std::string operator_library;  // libmolkv_ort; empty: the function inside the file is run
};

// Throws RunnerError if the graph cannot be loaded, is another checkpoint's, or has other inputs
// than docs/graph.md says.
OrtHandle<ort::OrtSession> LoadOnnxGraph(const OnnxRuntime& runtime,
                                         const OnnxGraphOptions& options, const Manifest& manifest);

}  // namespace molkv::runner

#endif  // MOLKV_RUNNER_ONNX_GRAPH_FILE_H_
