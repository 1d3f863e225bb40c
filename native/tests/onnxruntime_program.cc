// Runs a model of one node, the operator, on an ONNX Runtime given by path.
//
//   molkv_onnxruntime RUNTIME MODEL CASE OUTPUT [OPERATOR]
//
// With OPERATOR, the path of libmolkv_ort, our kernel computes it; without, the model's own
// function. OUTPUT becomes float32 [T, d].

#include <dlfcn.h>

#include <cstdio>
#include <exception>

#include "../onnxruntime/ort_c_api.h"
#include "case_file.h"

namespace molkv_test {
namespace {

using namespace molkv::ort;

class Runtime {
 public:
  explicit Runtime(const char* path) {
    void* library = dlopen(path, RTLD_NOW);
    if (library == nullptr) throw std::runtime_error(dlerror());
    const auto base = reinterpret_cast<const OrtApiBase* (*)()>(dlsym(library, "OrtGetApiBase"));
    api_ = base()->GetApi(kApiVersion);
    Check(api_->CreateEnv(ORT_LOGGING_LEVEL_FATAL, "test", &environment_));
    Check(api_->CreateCpuMemoryInfo(OrtDeviceAllocator, OrtMemTypeDefault, &memory_));
  }

  const OrtApi& api() const { return *api_; }

  // What a test makes lives until it ends.
  OrtSession* MakeSession(const char* model, const char* operators) {
    OrtSessionOptions* options = nullptr;
    Check(api_->CreateSessionOptions(&options));
    Check(api_->SetIntraOpNumThreads(options, 2));
    if (operators != nullptr) Check(api_->RegisterCustomOpsLibrary_V2(options, operators));
    OrtSession* session = nullptr;
    Check(api_->CreateSession(environment_, model, options, &session));
    return session;
  }

  void Check(OrtStatus* status) const {
    if (status != nullptr) throw std::runtime_error(api_->GetErrorMessage(status));
  }

  OrtValue* MakeTensor(const void* data, size_t element, const std::vector<int64_t>& shape,
                       ONNXTensorElementDataType type) const {
    size_t size = element;
    for (const int64_t dimension : shape) size *= static_cast<size_t>(dimension);
    OrtValue* value = nullptr;
    Check(api_->CreateTensorWithDataAsOrtValue(memory_, const_cast<void*>(data), size, shape.data(),
                                               shape.size(), type, &value));
    return value;
  }

  OrtValue* MakeFloats(const float* data, const std::vector<int64_t>& shape) const {
    return MakeTensor(data, sizeof(float), shape, ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT);
  }

  OrtValue* MakePlane(const void* data, const std::vector<int64_t>& shape, uint32_t dtype) const {
    switch (dtype) {
      case MOLKV_INT8:
        return MakeTensor(data, 1, shape, ONNX_TENSOR_ELEMENT_DATA_TYPE_INT8);
      case MOLKV_INT4:
        return MakeTensor(data, 1, shape, ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT8);
      default:
        return MakeTensor(data, 2, shape, ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT16);
    }
  }

 private:
  const OrtApi* api_ = nullptr;
  OrtEnv* environment_ = nullptr;
  OrtMemoryInfo* memory_ = nullptr;
};

std::vector<float> Run(Runtime& runtime, OrtSession* session,
                       const molkv_attention_inputs& inputs) {
  const int64_t tokens = inputs.tokens, rows = inputs.rows, experts = inputs.experts;
  const int64_t heads = inputs.heads, key_size = inputs.key_size, width = inputs.value_size;
  OrtIoBinding* binding = nullptr;
  runtime.Check(runtime.api().CreateIoBinding(session, &binding));
  const auto bind = [&](const char* name, OrtValue* value) {
    runtime.Check(runtime.api().BindInput(binding, name, value));
  };
  bind("query", runtime.MakeFloats(inputs.query, {1, tokens, heads * key_size}));
  bind("keys", runtime.MakePlane(inputs.keys, {rows, experts, heads * key_size}, inputs.key_dtype));
  if (inputs.key_scales) bind("key_scales", runtime.MakeFloats(inputs.key_scales, {rows, experts}));
  const bool packed = inputs.value_dtype == MOLKV_INT4;
  bind("values", runtime.MakePlane(inputs.values, {rows, experts, packed ? width / 2 : width},
                                   inputs.value_dtype));
  if (packed) {
    bind("value_scales",
         runtime.MakePlane(inputs.value_scales, {rows, experts, width / MOLKV_INT4_GROUP},
                           MOLKV_FLOAT16));
  } else if (inputs.value_scales) {
    bind("value_scales",
         runtime.MakeFloats(static_cast<const float*>(inputs.value_scales), {rows, experts}));
  }
  bind("age_bias", runtime.MakeFloats(inputs.age_bias, {heads, experts, inputs.window}));
  bind("start", runtime.MakeTensor(&inputs.start, sizeof(int64_t), {1},
                                   ONNX_TENSOR_ELEMENT_DATA_TYPE_INT64));
  std::vector<float> output(size_t{inputs.tokens} * inputs.value_size);
  runtime.Check(runtime.api().BindOutput(binding, "output",
                                         runtime.MakeFloats(output.data(), {1, tokens, width})));
  OrtRunOptions* options = nullptr;
  runtime.Check(runtime.api().CreateRunOptions(&options));
  runtime.Check(runtime.api().RunWithBinding(session, options, binding));
  return output;
}

}  // namespace
}  // namespace molkv_test

int main(int count, char** arguments) {
  if (count != 5 && count != 6) {
    std::fprintf(stderr, "usage: molkv_onnxruntime RUNTIME MODEL CASE OUTPUT [OPERATOR]\n");
    return 2;
  }
  try {
    molkv_test::Runtime runtime(arguments[1]);
    const molkv_test::CaseFile example(arguments[3]);
    auto* session = runtime.MakeSession(arguments[2], count == 6 ? arguments[5] : nullptr);
    const std::vector<float> output = molkv_test::Run(runtime, session, example.inputs());
    molkv_test::WriteWholeFile(arguments[4], output.data(), output.size() * sizeof(float));
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
  return 0;
}
