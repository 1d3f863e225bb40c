// ai.molkv::ExpertAttention version 1 for ONNX Runtime (docs/graph.md, "In the ONNX file").
// Load it with SessionOptions.register_custom_ops_library; the kernel then takes precedence over
// the model's own function of the same name.

#include <climits>
#include <cmath>
#include <cstdint>
#include <exception>
#include <string>
#include <vector>

#include "error.h"
#include "molkv/molkv.h"
#include "ort_c_api.h"

namespace molkv::ort {
namespace {

constexpr char kDomain[] = "ai.molkv";

enum Input : size_t {
  kQuery,
  kKeys,
  kKeyScales,
  kValues,
  kValueScales,
  kAgeBias,
  kStart,
  kQueryNorm,
  kAdded,
  kInputCount,
};

constexpr const char* kInputNames[kInputCount] = {
    "query",    "keys",  "key_scales", "values", "value_scales",
    "age_bias", "start", "query_norm", "added",
};

bool IsOptional(size_t input) {
  return input == kKeyScales || input == kValueScales || input == kQueryNorm || input == kAdded;
}

// A failure that ONNX Runtime reported.
struct Failure {
  OrtStatus* status;
};

void Check(OrtStatus* status) {
  if (status != nullptr) throw Failure{status};
}

[[noreturn]] void Refuse(Input input, const std::string& message) {
  throw Error(MOLKV_INVALID_ARGUMENT,
              std::string("ExpertAttention: ") + kInputNames[input] + " " + message);
}

constexpr size_t kMostDimensions = 3;

// An input; `data` is null where an optional one is absent.
struct Tensor {
  const void* data = nullptr;
  ONNXTensorElementDataType type = ONNX_TENSOR_ELEMENT_DATA_TYPE_UNDEFINED;
  size_t rank = 0;
  int64_t dimensions[kMostDimensions] = {};
};

std::string ShapeText(const int64_t* dimensions, size_t rank) {
  std::string text = "[";
  for (size_t i = 0; i < rank; ++i) text += (i ? ", " : "") + std::to_string(dimensions[i]);
  return text + "]";
}

void ReadShape(const OrtApi& api, const OrtTensorTypeAndShapeInfo* info, Input input,
               Tensor* tensor) {
  Check(api.GetTensorElementType(info, &tensor->type));
  Check(api.GetDimensionsCount(info, &tensor->rank));
  if (tensor->rank > kMostDimensions) {
    Refuse(input, "has " + std::to_string(tensor->rank) + " dimensions (at most 3 are known)");
  }
  Check(api.GetDimensions(info, tensor->dimensions, tensor->rank));
}

Tensor ReadInput(const OrtApi& api, const OrtKernelContext* context, Input input) {
  Tensor tensor;
  const OrtValue* value = nullptr;
  Check(api.KernelContext_GetInput(context, input, &value));
  if (value == nullptr) return tensor;
  OrtTensorTypeAndShapeInfo* info = nullptr;
  Check(api.GetTensorTypeAndShape(value, &info));
  try {
    ReadShape(api, info, input, &tensor);
  } catch (...) {
    api.ReleaseTensorTypeAndShapeInfo(info);
    throw;
  }
  api.ReleaseTensorTypeAndShapeInfo(info);
  void* data = nullptr;
  Check(api.GetTensorMutableData(const_cast<OrtValue*>(value), &data));
  // An empty tensor may have no memory; its size is refused later, as a size.
  static const char kNothing = 0;
  tensor.data = data != nullptr ? data : &kNothing;
  return tensor;
}

void CheckShape(const Tensor& tensor, Input input, std::initializer_list<int64_t> expected) {
  bool equal = tensor.rank == expected.size();
  for (size_t i = 0; equal && i < tensor.rank; ++i) {
    equal = tensor.dimensions[i] == expected.begin()[i];
  }
  if (!equal) {
    Refuse(input, "has the shape " + ShapeText(tensor.dimensions, tensor.rank) +
                      " (the others' is " + "that of " +
                      ShapeText(expected.begin(), expected.size()) + ")");
  }
}

uint32_t Size(const Tensor& tensor, Input input, size_t axis) {
  const int64_t size = tensor.dimensions[axis];
  if (size < 1 || size > INT32_MAX) {
    Refuse(input, "has the shape " + ShapeText(tensor.dimensions, tensor.rank) +
                      " (every dimension is from 1 to 2147483647)");
  }
  return static_cast<uint32_t>(size);
}

uint32_t DataType(const Tensor& tensor, Input input) {
  const bool values = input == kValues;
  if (tensor.type == ONNX_TENSOR_ELEMENT_DATA_TYPE_INT8) return MOLKV_INT8;
  if (tensor.type == ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT16) return MOLKV_FLOAT16;
  if (tensor.type == ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT8 && values) return MOLKV_INT4;
  Refuse(input, "has the element type " + std::to_string(tensor.type) + " (int8 or float16" +
                    (values ? ", or uint8 for packed int4)" : ")"));
}

// The values' scales: one for a whole vector, or for each group of int4.
void CheckValueScales(const Tensor& scales, const molkv_attention_inputs& inputs) {
  if (scales.data == nullptr) return;
  const bool groups = inputs.value_dtype == MOLKV_INT4;
  const int64_t rows = inputs.rows, experts = inputs.experts;
  if (groups) {
    CheckShape(scales, kValueScales, {rows, experts, inputs.value_size / MOLKV_INT4_GROUP});
  } else {
    CheckShape(scales, kValueScales, {rows, experts});
  }
  const auto type =
      groups ? ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT16 : ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT;
  if (scales.type != type) {
    Refuse(kValueScales, "has the element type " + std::to_string(scales.type) + " (float32, or " +
                             "float16 for the groups of packed int4)");
  }
}

void CheckRank(const Tensor& tensor, Input input) {
  if (tensor.rank != 3) {
    Refuse(input,
           "has the shape " + ShapeText(tensor.dimensions, tensor.rank) + " (it has 3 dimensions)");
  }
}

// All that docs/graph.md says about shapes; molkv_attention checks the sizes' meaning.
molkv_attention_inputs MakeInputs(const Tensor (&tensors)[kInputCount]) {
  const Tensor& query = tensors[kQuery];
  const Tensor& values = tensors[kValues];
  const Tensor& bias = tensors[kAgeBias];
  for (Input input : {kQuery, kValues, kAgeBias}) CheckRank(tensors[input], input);
  if (query.dimensions[0] != 1) {
    Refuse(kQuery,
           "has the shape " + ShapeText(query.dimensions, query.rank) + " (the first of it is 1)");
  }

  molkv_attention_inputs inputs = {};
  inputs.struct_size = sizeof(inputs);
  inputs.kernel = MOLKV_KERNEL_BEST;
  inputs.tokens = Size(query, kQuery, 1);
  inputs.heads = Size(bias, kAgeBias, 0);
  const uint32_t width = Size(query, kQuery, 2);
  if (width % inputs.heads != 0) {
    Refuse(kQuery, "has the shape " + ShapeText(query.dimensions, query.rank) +
                       " (the last of it is a multiple of the heads of age_bias, " +
                       std::to_string(inputs.heads) + ")");
  }
  inputs.key_size = width / inputs.heads;
  inputs.rows = Size(values, kValues, 0);
  inputs.experts = Size(values, kValues, 1);
  inputs.key_dtype = DataType(tensors[kKeys], kKeys);
  inputs.value_dtype = DataType(values, kValues);
  const bool packed = inputs.value_dtype == MOLKV_INT4;  // two elements a byte
  inputs.value_size = (packed ? 2 : 1) * Size(values, kValues, 2);
  inputs.window = Size(bias, kAgeBias, 2);
  const int64_t rows = inputs.rows, experts = inputs.experts, heads = inputs.heads;
  CheckShape(tensors[kKeys], kKeys, {rows, experts, heads * inputs.key_size});
  CheckShape(bias, kAgeBias, {heads, experts, inputs.window});
  if (tensors[kKeyScales].data != nullptr) {
    CheckShape(tensors[kKeyScales], kKeyScales, {rows, experts});
  }
  CheckValueScales(tensors[kValueScales], inputs);
  CheckShape(tensors[kStart], kStart, {1});
  inputs.start = *static_cast<const int64_t*>(tensors[kStart].data);
  inputs.query = static_cast<const float*>(query.data);
  inputs.keys = tensors[kKeys].data;
  inputs.key_scales = static_cast<const float*>(tensors[kKeyScales].data);
  inputs.values = values.data;
  inputs.value_scales = tensors[kValueScales].data;
  inputs.age_bias = static_cast<const float*>(bias.data);
  return inputs;
}

// Query vectors as in the graph, normalised: [tokens, heads, key_size].
std::vector<float> Normalized(const molkv_attention_inputs& inputs, const Tensor& weights,
                              float epsilon) {
  CheckShape(weights, kQueryNorm, {inputs.key_size});
  const auto* weight = static_cast<const float*>(weights.data);
  const size_t size = inputs.key_size;
  std::vector<float> normalized(size_t{inputs.tokens} * inputs.heads * size);
  for (size_t first = 0; first < normalized.size(); first += size) {
    const float* vector = inputs.query + first;
    constexpr size_t kSums = 8;  // which a compiler may add up at once
    float sums[kSums] = {};
    for (size_t i = 0; i < size; ++i) sums[i % kSums] += vector[i] * vector[i];
    float sum = 0;
    for (const float part : sums) sum += part;
    const float factor = 1.0f / std::sqrt(sum / static_cast<float>(size) + epsilon);
    for (size_t i = 0; i < size; ++i) normalized[first + i] = vector[i] * factor * weight[i];
  }
  return normalized;
}

struct Pool {
  const OrtApi& api;
  const OrtKernelContext* context;
};

// A molkv_parallel_for on ONNX Runtime's own threads, so that the two never compete for cores.
void ParallelFor(void* pool, size_t count, void (*work)(void*, size_t, size_t), void* context) {
  struct Job {
    void (*work)(void*, size_t, size_t);
    void* context;
  };
  const Pool& threads = *static_cast<const Pool*>(pool);
  Job job = {work, context};
  const auto run = [](void* data, size_t index) {
    const Job& job = *static_cast<const Job*>(data);
    job.work(job.context, index, index + 1);
  };
  OrtStatus* status = threads.api.KernelContext_ParallelFor(threads.context, run, count, 0, &job);
  if (status != nullptr) {  // nothing ran
    threads.api.ReleaseStatus(status);
    work(context, 0, count);
  }
}

struct Kernel {
  const OrtApi& api;
  float epsilon;  // of the query's norm
};

void Compute(const Kernel& kernel, OrtKernelContext* context) {
  const OrtApi& api = kernel.api;
  Tensor tensors[kInputCount];
  for (size_t i = 0; i < kInputCount; ++i) {
    tensors[i] = ReadInput(api, context, static_cast<Input>(i));
  }
  molkv_attention_inputs inputs = MakeInputs(tensors);
  std::vector<float> normalized;
  if (tensors[kQueryNorm].data != nullptr) {
    if (!(kernel.epsilon >= 0)) Refuse(kQueryNorm, "needs the attribute epsilon");
    normalized = Normalized(inputs, tensors[kQueryNorm], kernel.epsilon);
    inputs.query = normalized.data();
  }
  const int64_t shape[] = {1, inputs.tokens, inputs.value_size};
  const Tensor& added = tensors[kAdded];
  if (added.data != nullptr) CheckShape(added, kAdded, {1, inputs.tokens, inputs.value_size});
  OrtValue* value = nullptr;
  Check(api.KernelContext_GetOutput(context, 0, shape, 3, &value));
  void* data = nullptr;
  Check(api.GetTensorMutableData(value, &data));
  auto* output = static_cast<float*>(data);
  Pool pool = {api, context};
  molkv_error error;
  const molkv_status status = molkv_attention(&inputs, output, nullptr, ParallelFor, &pool, &error);
  if (status != MOLKV_OK) throw Error(status, error.message);
  if (added.data == nullptr) return;
  const auto* other = static_cast<const float*>(added.data);
  const size_t elements = size_t{inputs.tokens} * inputs.value_size;
  for (size_t i = 0; i < elements; ++i) output[i] += other[i];
}

// Negative if there is none, which a node without a norm needs not have.
float ReadEpsilon(const OrtApi& api, const OrtKernelInfo* info) {
  float epsilon = 0;
  if (OrtStatus* status = api.KernelInfoGetAttribute_float(info, "epsilon", &epsilon)) {
    api.ReleaseStatus(status);
    return -1;
  }
  return epsilon;
}

// Runs the body of a callback and turns what it throws into a status.
template <typename Body>
OrtStatus* GuardStatus(const OrtApi& api, const Body& body) noexcept {
  try {
    body();
    return nullptr;
  } catch (const Failure& failure) {
    return failure.status;
  } catch (const Error& error) {
    const bool unsupported = error.status() == MOLKV_UNSUPPORTED;
    return api.CreateStatus(unsupported ? ORT_NOT_IMPLEMENTED : ORT_INVALID_ARGUMENT, error.what());
  } catch (const std::exception& error) {
    return api.CreateStatus(ORT_FAIL, error.what());
  }
}

OrtCustomOp MakeOp() {
  OrtCustomOp op = {};
  op.version = kApiVersion;
  op.GetName = [](const OrtCustomOp*) { return "ExpertAttention"; };
  op.GetExecutionProviderType = [](const OrtCustomOp*) { return "CPUExecutionProvider"; };
  op.GetInputTypeCount = [](const OrtCustomOp*) -> size_t { return kInputCount; };
  op.GetInputType = [](const OrtCustomOp*, size_t index) {
    if (index == kStart) return ONNX_TENSOR_ELEMENT_DATA_TYPE_INT64;
    const bool of_any_type = index == kKeys || index == kValues || index == kValueScales;
    return of_any_type ? ONNX_TENSOR_ELEMENT_DATA_TYPE_UNDEFINED
                       : ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT;
  };
  op.GetInputCharacteristic = [](const OrtCustomOp*, size_t index) {
    return IsOptional(index) ? INPUT_OUTPUT_OPTIONAL : INPUT_OUTPUT_REQUIRED;
  };
  op.GetInputMemoryType = [](const OrtCustomOp*, size_t) { return OrtMemTypeDefault; };
  op.GetOutputTypeCount = [](const OrtCustomOp*) -> size_t { return 1; };
  op.GetOutputType = [](const OrtCustomOp*, size_t) { return ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT; };
  op.GetOutputCharacteristic = [](const OrtCustomOp*, size_t) { return INPUT_OUTPUT_REQUIRED; };
  op.GetVariadicInputMinArity = [](const OrtCustomOp*) { return 1; };
  op.GetVariadicInputHomogeneity = [](const OrtCustomOp*) { return 1; };
  op.GetVariadicOutputMinArity = [](const OrtCustomOp*) { return 1; };
  op.GetVariadicOutputHomogeneity = [](const OrtCustomOp*) { return 1; };
  op.GetStartVersion = [](const OrtCustomOp*) { return 1; };
  op.GetEndVersion = [](const OrtCustomOp*) { return 1; };
  op.CreateKernelV2 = [](const OrtCustomOp*, const OrtApi* api, const OrtKernelInfo* info,
                         void** kernel) {
    return GuardStatus(*api, [&] { *kernel = new Kernel{*api, ReadEpsilon(*api, info)}; });
  };
  op.KernelComputeV2 = [](void* data, OrtKernelContext* context) {
    const auto& kernel = *static_cast<const Kernel*>(data);
    return GuardStatus(kernel.api, [&] { Compute(kernel, context); });
  };
  op.KernelDestroy = [](void* kernel) { delete static_cast<Kernel*>(kernel); };
  return op;
}

// The domain with the op. Sessions refer to it for as long as they live, so it is never released.
OrtCustomOpDomain* GetDomain(const OrtApi& api) {
  static const OrtCustomOp op = MakeOp();
  static OrtCustomOpDomain* const domain = [&] {
    OrtCustomOpDomain* created = nullptr;
    Check(api.CreateCustomOpDomain(kDomain, &created));
    Check(api.CustomOpDomain_Add(created, &op));
    return created;
  }();
  return domain;
}

}  // namespace
}  // namespace molkv::ort

// What SessionOptions.register_custom_ops_library calls.
extern "C" MOLKV_EXPORT molkv::ort::OrtStatus* RegisterCustomOps(
    molkv::ort::OrtSessionOptions* options, const molkv::ort::OrtApiBase* base) {
  using molkv::ort::OrtApi;
  const OrtApi* api = base->GetApi(molkv::ort::kApiVersion);
  if (api == nullptr) {
    const std::string message = std::string("molkv's operator needs ONNX Runtime 1.17 or newer; ") +
                                "this is " + base->GetVersionString();
    return base->GetApi(1)->CreateStatus(molkv::ort::ORT_NOT_IMPLEMENTED, message.c_str());
  }
  return molkv::ort::GuardStatus(*api, [&] {
    molkv::ort::Check(api->AddCustomOpDomain(options, molkv::ort::GetDomain(*api)));
  });
}
