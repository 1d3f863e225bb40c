// What the command line says.

#ifndef MOLKV_RUNNER_OPTIONS_H_
#define MOLKV_RUNNER_OPTIONS_H_

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "molkv/molkv.h"

namespace molkv::runner {

struct Options {
  std::string bundle;
  std::string backend;  // whose dense graph to run; empty: chosen by what the bundle has

  // One of these, or `golden`.
  std::optional<std::string> prompt;
  std::optional<std::string> prompt_file;
  std::optional<std::vector<int64_t>> ids;

  size_t max_new_tokens = 128;
  molkv_sampling sampling = {sizeof(molkv_sampling), 40, 0.8, 0.95, 0, 0};
  size_t chunk = 128;
  int threads = 1;

  bool stock = false;            // runs the operator from the ONNX graph file
  std::string onnxruntime;       // empty: found by OnnxRuntime
  std::string operator_library;  // empty: the backend's default
  std::string program;           // as it was called

  bool golden = false;
  std::string logits;  // a file to write; empty: none
  bool json = false;
};

// Reads the command line. Returns nothing where --help or --version was answered. Throws
// RunnerError for wrong usage.
std::optional<Options> ParseOptions(int argc, char** argv);

}  // namespace molkv::runner

#endif  // MOLKV_RUNNER_OPTIONS_H_
