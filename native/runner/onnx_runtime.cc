#include "onnx_runtime.h"

#include <dlfcn.h>

#include <cstdlib>

#include "runner_error.h"

namespace molkv::runner {
namespace {

constexpr char kVariable[] = "MOLKV_ONNXRUNTIME";
constexpr char kFix[] =
    "name a libonnxruntime of version 1.17 or newer with --onnxruntime FILE or in the environment "
    "variable MOLKV_ONNXRUNTIME";
#ifdef __APPLE__
constexpr const char* kNames[] = {"libonnxruntime.dylib"};
#else
constexpr const char* kNames[] = {"libonnxruntime.so.1", "libonnxruntime.so"};
#endif

// The library is never unloaded: its threads may outlive every object made with it.
void* Load(const std::string& file) {
  std::vector<std::string> names = {file};
  if (file.empty()) {
    if (const char* value = std::getenv(kVariable)) {
      names = {value};
    } else {
      names.assign(std::begin(kNames), std::end(kNames));
    }
  }
  std::string reason;
  for (const std::string& name : names) {
    if (void* library = dlopen(name.c_str(), RTLD_NOW | RTLD_LOCAL)) return library;
    reason = dlerror();
  }
  throw RunnerError("ONNX Runtime cannot be loaded: " + reason, kFix);
}

}  // namespace

OnnxRuntime::OnnxRuntime(const std::string& file) {
  using GetApiBase = const ort::OrtApiBase* (*)();
  const auto get_base = reinterpret_cast<GetApiBase>(dlsym(Load(file), "OrtGetApiBase"));
  if (get_base == nullptr) {
    throw RunnerError(file + ": is a library, but not ONNX Runtime", kFix);
  }
  version_ = get_base()->GetVersionString();
  api_ = get_base()->GetApi(ort::kApiVersion);
  if (api_ == nullptr) throw RunnerError("ONNX Runtime " + version_ + " is too old", kFix);
  const std::string what = "ONNX Runtime " + version_ + " cannot start";
  // Failures come as statuses, with the file's name added: nothing is to be logged besides.
  environment_ =
      Make<ort::OrtEnv>(what, &ort::OrtApi::CreateEnv, ort::ORT_LOGGING_LEVEL_FATAL, "molkv-run");
  memory_ = Make<ort::OrtMemoryInfo>(what, &ort::OrtApi::CreateCpuMemoryInfo,
                                     ort::OrtDeviceAllocator, ort::OrtMemTypeDefault);
  Call(what, &ort::OrtApi::GetAllocatorWithDefaultOptions, &allocator_);
}

OrtHandle<ort::OrtValue> OnnxRuntime::Tensor(void* data, uint64_t bytes,
                                             const std::vector<int64_t>& shape,
                                             ort::ONNXTensorElementDataType type) const {
  return Make<ort::OrtValue>("ONNX Runtime cannot make a tensor",
                             &ort::OrtApi::CreateTensorWithDataAsOrtValue, memory_.get(), data,
                             static_cast<size_t>(bytes), shape.data(), shape.size(), type);
}

std::string OnnxRuntime::TakeText(char* text) const {
  if (text == nullptr) return "";
  const std::string copy = text;
  Call("ONNX Runtime cannot free text", &ort::OrtApi::AllocatorFree, allocator_,
       static_cast<void*>(text));
  return copy;
}

void OnnxRuntime::Fail(std::string_view what, ort::OrtStatus* status) const {
  const std::string message = api_->GetErrorMessage(status);
  api_->ReleaseStatus(status);
  throw RunnerError(std::string(what) + ": " + message,
                    "copy the bundle again, or update ONNX Runtime");
}

}  // namespace molkv::runner
