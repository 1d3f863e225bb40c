// ONNX Runtime, loaded when the program runs, so that building it needs neither its headers nor its
// library.

#ifndef MOLKV_RUNNER_ONNX_RUNTIME_H_
#define MOLKV_RUNNER_ONNX_RUNTIME_H_

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "ort_c_api.h"

namespace molkv::runner {

// Gives an object back to ONNX Runtime.
struct OrtRelease {
  const ort::OrtApi* api = nullptr;

  void operator()(ort::OrtEnv* env) const { api->ReleaseEnv(env); }
  void operator()(ort::OrtMemoryInfo* info) const { api->ReleaseMemoryInfo(info); }
  void operator()(ort::OrtSessionOptions* options) const { api->ReleaseSessionOptions(options); }
  void operator()(ort::OrtSession* session) const { api->ReleaseSession(session); }
  void operator()(ort::OrtRunOptions* options) const { api->ReleaseRunOptions(options); }
  void operator()(ort::OrtModelMetadata* metadata) const { api->ReleaseModelMetadata(metadata); }
  void operator()(ort::OrtIoBinding* binding) const { api->ReleaseIoBinding(binding); }
  void operator()(ort::OrtValue* value) const { api->ReleaseValue(value); }
};

template <typename Object>
using OrtHandle = std::unique_ptr<Object, OrtRelease>;

// The loaded library and its environment. Functions throw RunnerError. It must outlive every object
// made with it.
class OnnxRuntime {
 public:
  // `file` is a libonnxruntime; empty means the file in the environment variable
  // MOLKV_ONNXRUNTIME, or else what the system finds.
  explicit OnnxRuntime(const std::string& file);

  const ort::OrtApi& api() const { return *api_; }
  const ort::OrtEnv* environment() const { return environment_.get(); }
  const std::string& version() const { return version_; }

  // Calls a function of the API that reports a status, and throws what it reports. `what` is the
  // start of the message.
  template <typename Function, typename... Arguments>
  void Call(std::string_view what, Function function, Arguments... arguments) const {
    if (ort::OrtStatus* status = (api_->*function)(arguments...)) Fail(what, status);
  }

  // The same for a function that makes an object, which it hands out through its last argument.
  template <typename Object, typename Function, typename... Arguments>
  OrtHandle<Object> Make(std::string_view what, Function function, Arguments... arguments) const {
    Object* object = nullptr;
    Call(what, function, arguments..., &object);
    return OrtHandle<Object>(object, OrtRelease{api_});
  }

  // A tensor over memory that stays the caller's.
  OrtHandle<ort::OrtValue> Tensor(void* data, uint64_t bytes, const std::vector<int64_t>& shape,
                                  ort::ONNXTensorElementDataType type) const;

  // Text that a function of the API allocated; it is given back. Empty for null.
  std::string TakeText(char* text) const;
  ort::OrtAllocator* allocator() const { return allocator_; }

 private:
  [[noreturn]] void Fail(std::string_view what, ort::OrtStatus* status) const;

  const ort::OrtApi* api_ = nullptr;
  std::string version_;
  OrtHandle<ort::OrtEnv> environment_;
  OrtHandle<ort::OrtMemoryInfo> memory_;
  ort::OrtAllocator* allocator_ = nullptr;
};

}  // namespace molkv::runner

#endif  // MOLKV_RUNNER_ONNX_RUNTIME_H_
