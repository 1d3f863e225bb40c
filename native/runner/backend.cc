#include "backend.h"

#include <filesystem>
#include <system_error>

#include "onnx_graph.h"
#include "runner_error.h"
#ifdef MOLKV_HAS_EXECUTORCH
#include "executorch_graph.h"
#endif

namespace molkv::runner {
namespace {

constexpr char kOnnx[] = "onnx";
constexpr char kExecutorch[] = "executorch";

#ifdef __APPLE__
constexpr char kOperatorLibrary[] = "libmolkv_ort.dylib";
#else
constexpr char kOperatorLibrary[] = "libmolkv_ort.so";
#endif

// Beside the program, wherever it was copied to.
std::string OperatorLibraryBeside(const std::string& program) {
  std::error_code failure;
  std::filesystem::path self = std::filesystem::read_symlink("/proc/self/exe", failure);
  if (failure) self = std::filesystem::absolute(program, failure);
  const std::filesystem::path library = self.parent_path() / kOperatorLibrary;
  if (std::filesystem::is_regular_file(library, failure)) return library.string();
  throw RunnerError(library.string() + ": file is missing",
                    "name it with --operator-library FILE, or pass --engine stock");
}

std::unique_ptr<DenseGraph> OpenOnnx(const Bundle& bundle, const Options& options) {
  std::string library = options.operator_library;
  if (options.stock) {
    library.clear();
  } else if (library.empty()) {
    library = OperatorLibraryBeside(options.program);
  }
  const OnnxGraphOptions graph = {bundle.GraphFile(kOnnx), options.threads, library};
  return std::make_unique<OnnxGraph>(options.onnxruntime, graph, bundle.manifest());
}

std::unique_ptr<DenseGraph> OpenExecutorch(const Bundle& bundle, const Options& options) {
  const std::string file = bundle.GraphFile(kExecutorch);
  if (options.stock) {
    throw RunnerError(file + ": --engine stock is for ONNX graphs, which have the operator inside",
                      "leave it out, or pass --backend onnx");
  }
#ifdef MOLKV_HAS_EXECUTORCH
  const ExecutorchGraphOptions graph = {file, options.threads, options.operator_library};
  return std::make_unique<ExecutorchGraph>(graph, bundle.manifest());
#else
  throw RunnerError(file + ": this program was built without ExecuTorch",
                    "build it with -DMOLKV_BUILD_EXECUTORCH=ON, or run an ONNX graph");
#endif
}

}  // namespace

std::string ChooseBackend(const Options& options, const Manifest& manifest) {
  if (!options.backend.empty()) return options.backend;
  const bool other = manifest.backends.count(kOnnx) == 0;
  return other && manifest.backends.count(kExecutorch) != 0 ? kExecutorch : kOnnx;
}

std::unique_ptr<DenseGraph> OpenGraph(const Bundle& bundle, const std::string& backend,
                                      const Options& options) {
  return backend == kExecutorch ? OpenExecutorch(bundle, options) : OpenOnnx(bundle, options);
}

}  // namespace molkv::runner
