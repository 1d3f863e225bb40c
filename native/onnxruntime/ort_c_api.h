// The part of ONNX Runtime's C ABI that the custom op and the runner use, so that building them
// needs no headers of ONNX Runtime, which its Python package does not have.
//
// The ABI is append-only: a function keeps its place in OrtApi for ever. A test compares the places
// and the layout of OrtCustomOp with an official header. Names are ONNX Runtime's own.

#ifndef MOLKV_ONNXRUNTIME_ORT_C_API_H_
#define MOLKV_ONNXRUNTIME_ORT_C_API_H_

#include <stddef.h>
#include <stdint.h>

namespace molkv::ort {

// The version that brought KernelContext_ParallelFor: ONNX Runtime 1.17.
constexpr uint32_t kApiVersion = 17;

struct OrtAllocator;
struct OrtCustomOp;
struct OrtCustomOpDomain;
struct OrtEnv;
struct OrtIoBinding;
struct OrtKernelContext;
struct OrtKernelInfo;
struct OrtMemoryInfo;
struct OrtModelMetadata;
struct OrtRunOptions;
struct OrtSession;
struct OrtSessionOptions;
struct OrtStatus;
struct OrtTensorTypeAndShapeInfo;
struct OrtValue;

enum OrtErrorCode : int {
  ORT_FAIL = 1,
  ORT_INVALID_ARGUMENT = 2,
  ORT_NOT_IMPLEMENTED = 9,
};

enum ONNXTensorElementDataType : int {
  ONNX_TENSOR_ELEMENT_DATA_TYPE_UNDEFINED = 0,
  ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT = 1,
  ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT8 = 2,
  ONNX_TENSOR_ELEMENT_DATA_TYPE_INT8 = 3,
  ONNX_TENSOR_ELEMENT_DATA_TYPE_INT64 = 7,
  ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT16 = 10,
};

enum OrtCustomOpInputOutputCharacteristic : int {
  INPUT_OUTPUT_REQUIRED = 0,
  INPUT_OUTPUT_OPTIONAL = 1,
};

enum OrtLoggingLevel : int {
  ORT_LOGGING_LEVEL_FATAL = 4,
};

enum OrtAllocatorType : int {
  OrtDeviceAllocator = 0,
};

enum OrtMemType : int {
  OrtMemTypeDefault = 0,
};

// Functions that return OrtStatus* return null on success.
struct OrtApi {
  using Unused = void (*)();

  OrtStatus* (*CreateStatus)(OrtErrorCode code, const char* message);
  Unused unused_1[1];
  const char* (*GetErrorMessage)(const OrtStatus* status);
  OrtStatus* (*CreateEnv)(OrtLoggingLevel level, const char* log_id, OrtEnv** env);
  Unused unused_4[3];
  OrtStatus* (*CreateSession)(const OrtEnv* env, const char* path, const OrtSessionOptions* options,
                              OrtSession** session);
  Unused unused_8[2];
  OrtStatus* (*CreateSessionOptions)(OrtSessionOptions** options);
  Unused unused_11[11];
  OrtStatus* (*SetSessionLogSeverityLevel)(OrtSessionOptions* options, int level);
  Unused unused_23[1];
  OrtStatus* (*SetIntraOpNumThreads)(OrtSessionOptions* options, int threads);
  OrtStatus* (*SetInterOpNumThreads)(OrtSessionOptions* options, int threads);
  OrtStatus* (*CreateCustomOpDomain)(const char* domain, OrtCustomOpDomain** result);
  OrtStatus* (*CustomOpDomain_Add)(OrtCustomOpDomain* domain, const OrtCustomOp* op);
  OrtStatus* (*AddCustomOpDomain)(OrtSessionOptions* options, OrtCustomOpDomain* domain);
  Unused unused_29[1];
  OrtStatus* (*SessionGetInputCount)(const OrtSession* session, size_t* count);
  Unused unused_31[5];
  OrtStatus* (*SessionGetInputName)(const OrtSession* session, size_t index,
                                    OrtAllocator* allocator, char** name);
  Unused unused_37[2];
  OrtStatus* (*CreateRunOptions)(OrtRunOptions** options);
  Unused unused_40[9];
  OrtStatus* (*CreateTensorWithDataAsOrtValue)(const OrtMemoryInfo* info, void* data, size_t bytes,
                                               const int64_t* dimensions, size_t count,
                                               ONNXTensorElementDataType type, OrtValue** value);
  Unused unused_50[1];
  OrtStatus* (*GetTensorMutableData)(OrtValue* value, void** data);
  Unused unused_52[8];
  OrtStatus* (*GetTensorElementType)(const OrtTensorTypeAndShapeInfo* info,
                                     ONNXTensorElementDataType* type);
  OrtStatus* (*GetDimensionsCount)(const OrtTensorTypeAndShapeInfo* info, size_t* count);
  OrtStatus* (*GetDimensions)(const OrtTensorTypeAndShapeInfo* info, int64_t* dimensions,
                              size_t count);
  Unused unused_63[2];
  OrtStatus* (*GetTensorTypeAndShape)(const OrtValue* value, OrtTensorTypeAndShapeInfo** info);
  Unused unused_66[3];
  OrtStatus* (*CreateCpuMemoryInfo)(OrtAllocatorType allocator, OrtMemType type,
                                    OrtMemoryInfo** info);
  Unused unused_70[6];
  OrtStatus* (*AllocatorFree)(OrtAllocator* allocator, void* memory);
  Unused unused_77[1];
  OrtStatus* (*GetAllocatorWithDefaultOptions)(OrtAllocator** allocator);
  Unused unused_79[6];
  OrtStatus* (*KernelInfoGetAttribute_float)(const OrtKernelInfo* info, const char* name,
                                             float* value);
  Unused unused_86[4];
  OrtStatus* (*KernelContext_GetInput)(const OrtKernelContext* context, size_t index,
                                       const OrtValue** value);
  OrtStatus* (*KernelContext_GetOutput)(OrtKernelContext* context, size_t index,
                                        const int64_t* dimensions, size_t count, OrtValue** value);
  void (*ReleaseEnv)(OrtEnv* env);
  void (*ReleaseStatus)(OrtStatus* status);
  void (*ReleaseMemoryInfo)(OrtMemoryInfo* info);
  void (*ReleaseSession)(OrtSession* session);
  void (*ReleaseValue)(OrtValue* value);
  void (*ReleaseRunOptions)(OrtRunOptions* options);
  Unused unused_98[1];
  void (*ReleaseTensorTypeAndShapeInfo)(OrtTensorTypeAndShapeInfo* info);
  void (*ReleaseSessionOptions)(OrtSessionOptions* options);
  Unused unused_101[10];
  OrtStatus* (*SessionGetModelMetadata)(const OrtSession* session, OrtModelMetadata** metadata);
  Unused unused_112[4];
  OrtStatus* (*ModelMetadataLookupCustomMetadataMap)(const OrtModelMetadata* metadata,
                                                     OrtAllocator* allocator, const char* key,
                                                     char** value);
  Unused unused_117[1];
  void (*ReleaseModelMetadata)(OrtModelMetadata* metadata);
  Unused unused_119[14];
  OrtStatus* (*RunWithBinding)(OrtSession* session, const OrtRunOptions* options,
                               const OrtIoBinding* binding);
  OrtStatus* (*CreateIoBinding)(OrtSession* session, OrtIoBinding** binding);
  void (*ReleaseIoBinding)(OrtIoBinding* binding);
  OrtStatus* (*BindInput)(OrtIoBinding* binding, const char* name, const OrtValue* value);
  OrtStatus* (*BindOutput)(OrtIoBinding* binding, const char* name, const OrtValue* value);
  Unused unused_138[90];
  OrtStatus* (*RegisterCustomOpsLibrary_V2)(OrtSessionOptions* options, const char* path);
  Unused unused_229[45];
  OrtStatus* (*KernelContext_ParallelFor)(const OrtKernelContext* context,
                                          void (*work)(void* data, size_t index), size_t total,
                                          size_t batches, void* data);
};

struct OrtApiBase {
  const OrtApi* (*GetApi)(uint32_t version);
  const char* (*GetVersionString)();
};

// Callbacks that may stay null have the type Unused.
struct OrtCustomOp {
  using Unused = void (*)();

  uint32_t version;
  void* (*CreateKernel)(const OrtCustomOp* op, const OrtApi* api, const OrtKernelInfo* info);
  const char* (*GetName)(const OrtCustomOp* op);
  const char* (*GetExecutionProviderType)(const OrtCustomOp* op);
  ONNXTensorElementDataType (*GetInputType)(const OrtCustomOp* op, size_t index);
  size_t (*GetInputTypeCount)(const OrtCustomOp* op);
  ONNXTensorElementDataType (*GetOutputType)(const OrtCustomOp* op, size_t index);
  size_t (*GetOutputTypeCount)(const OrtCustomOp* op);
  void (*KernelCompute)(void* kernel, OrtKernelContext* context);
  void (*KernelDestroy)(void* kernel);
  OrtCustomOpInputOutputCharacteristic (*GetInputCharacteristic)(const OrtCustomOp* op,
                                                                 size_t index);
  OrtCustomOpInputOutputCharacteristic (*GetOutputCharacteristic)(const OrtCustomOp* op,
                                                                  size_t index);
  OrtMemType (*GetInputMemoryType)(const OrtCustomOp* op, size_t index);
  int (*GetVariadicInputMinArity)(const OrtCustomOp* op);
  int (*GetVariadicInputHomogeneity)(const OrtCustomOp* op);
  int (*GetVariadicOutputMinArity)(const OrtCustomOp* op);
  int (*GetVariadicOutputHomogeneity)(const OrtCustomOp* op);
  OrtStatus* (*CreateKernelV2)(const OrtCustomOp* op, const OrtApi* api, const OrtKernelInfo* info,
                               void** kernel);
  OrtStatus* (*KernelComputeV2)(void* kernel, OrtKernelContext* context);
  Unused InferOutputShapeFn;
  int (*GetStartVersion)(const OrtCustomOp* op);
  int (*GetEndVersion)(const OrtCustomOp* op);
  Unused GetMayInplace;
  Unused ReleaseMayInplace;
  Unused GetAliasMap;
  Unused ReleaseAliasMap;
};

}  // namespace molkv::ort

#endif  // MOLKV_ONNXRUNTIME_ORT_C_API_H_
