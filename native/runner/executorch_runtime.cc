#include "executorch_runtime.h"

#include <dlfcn.h>
#include <executorch/runtime/backend/interface.h>
#include <executorch/runtime/kernel/operator_registry.h>
#include <executorch/runtime/platform/platform.h>
#include <executorch/runtime/platform/runtime.h>

#include <cstdint>
#include <cstdio>
#include <mutex>
#include <utility>

#include "runner_error.h"

// The Python package has the library of the pool, but not this header.
#if __has_include(<executorch/extension/threadpool/threadpool.h>)
#include <executorch/extension/threadpool/threadpool.h>
#else
namespace executorch::extension::threadpool {
class ThreadPool {
 public:
  bool _unsafe_reset_threadpool(uint32_t count);
};
ThreadPool* get_threadpool();
}  // namespace executorch::extension::threadpool
#endif

namespace molkv::runner {
namespace {

constexpr char kExecutorch[] = "ExecuTorch " MOLKV_EXECUTORCH_VERSION;

struct LastMessage {
  std::mutex mutex;  // worker threads report, too
  std::string text;
};

LastMessage& KeptMessage() {
  static LastMessage message;
  return message;
}

void KeepMessage(et_timestamp_t, et_pal_log_level_t level, const char*, const char*, size_t,
                 const char* message, size_t length) {
  if (level == kFatal) {  // the process ends by it, so nobody will ask
    std::fprintf(stderr, "molkv-run: %s: %.*s\n", kExecutorch, static_cast<int>(length), message);
  } else if (level == kError) {
    LastMessage& last = KeptMessage();
    const std::lock_guard<std::mutex> lock(last.mutex);
    last.text.assign(message, length);
  }
}

// Who registers the operators of a namespace: in a build from ExecuTorch's sources, and in the
// Python package's libraries.
std::string SourceOf(const std::string& name) {
  const std::string domain = name.substr(0, name.find("::"));
  if (domain == "molkv") return "molkv's own kernel, expert_attention_kernel.cc,";
  if (domain == "llama") {
    return "ExecuTorch's library custom_ops (EXECUTORCH_BUILD_KERNELS_LLM=ON)";
  }
  if (domain == "quantized_decomposed") {
    return "ExecuTorch's library quantized_ops_lib, in the Python package kernels_quantized,";
  }
  if (domain == "torchao") return "torchao's kernels for ExecuTorch";
  return "ExecuTorch's library optimized_native_cpu_ops_lib, in the Python package "
         "kernels_optimized,";
}

[[noreturn]] void RefuseMissing(const std::string& what, const std::string& source) {
  throw RunnerError(
      what + " is missing from this program's " + kExecutorch + ": " + source + " brings it",
      "link it into molkv-run with -DMOLKV_EXECUTORCH_LIBRARIES, or load a shared "
      "library that registers it with --operator-library FILE");
}

}  // namespace

void StartExecutorch() {
  namespace et = ::executorch::runtime;
  et::runtime_init();
  et::register_pal(et::PalImpl::create(KeepMessage, __FILE__));
}

std::string TakeExecutorchMessage() {
  LastMessage& last = KeptMessage();
  const std::lock_guard<std::mutex> lock(last.mutex);
  return std::exchange(last.text, "");
}

void SetExecutorchThreads(int count) {
  auto* pool = ::executorch::extension::threadpool::get_threadpool();
  if (pool == nullptr) {
    throw RunnerError(std::string(kExecutorch) + " cannot make its threads",
                      "check that this processor is one that it knows");
  }
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wdeprecated-declarations"
  // The only function that sets their number; it asks for what holds here: nothing runs yet.
  pool->_unsafe_reset_threadpool(static_cast<uint32_t>(count));
#pragma GCC diagnostic pop
}

void LoadExecutorchOperators(const std::string& file) {
  if (dlopen(file.c_str(), RTLD_NOW | RTLD_LOCAL) != nullptr) return;
  throw RunnerError(file + ": cannot be loaded: " + dlerror(),
                    "name a shared library that registers operators with this program's own "
                    "ExecuTorch");
}

void RequireExecutorch(const BackendEntry& program) {
  namespace et = ::executorch::runtime;
  for (const std::string& name : program.operators) {
    if (!et::registry_has_op_function(name.c_str())) {
      RefuseMissing("operator " + name, SourceOf(name));
    }
  }
  for (const std::string& name : program.delegates) {
    if (et::get_backend_class(name.c_str()) == nullptr) {
      const bool xnnpack = name == "XnnpackBackend";
      RefuseMissing("delegate " + name,
                    xnnpack ? "ExecuTorch's library xnnpack_backend, in the Python package "
                              "backend_xnnpack,"
                            : "ExecuTorch's library of it");
    }
  }
}

}  // namespace molkv::runner
