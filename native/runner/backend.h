// Whose dense graph runs, on which engine.

#ifndef MOLKV_RUNNER_BACKEND_H_
#define MOLKV_RUNNER_BACKEND_H_

#include <memory>
#include <string>

#include "bundle.h"
#include "dense_graph.h"
#include "options.h"

namespace molkv::runner {

// The backend that was asked for, or else onnx if the bundle has it, or else executorch.
std::string ChooseBackend(const Options& options, const Manifest& manifest);

// Loads a backend's dense graph. Throws RunnerError if the bundle lacks it, this program was built
// without its engine, or it cannot be loaded.
std::unique_ptr<DenseGraph> OpenGraph(const Bundle& bundle, const std::string& backend,
                                      const Options& options);

}  // namespace molkv::runner

#endif  // MOLKV_RUNNER_BACKEND_H_
