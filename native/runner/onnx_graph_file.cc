#include "onnx_graph_file.h"

#include <set>
#include <vector>

#include "expert_planes.h"
#include "graph_facts.h"
#include "runner_error.h"

namespace molkv::runner {
namespace {

// The properties that are compared.
GraphProperties ReadProperties(const OnnxRuntime& runtime, const std::string& file,
                               const ort::OrtSession* session) {
  const auto metadata = runtime.Make<ort::OrtModelMetadata>(
      file + ": metadata", &ort::OrtApi::SessionGetModelMetadata, session);
  GraphProperties properties;
  for (const char* key : {"molkv.identity", "molkv.experts", "molkv.embedding", "molkv.dense",
                          "molkv.cache", "molkv.config"}) {
    char* value = nullptr;
    runtime.Call("metadata", &ort::OrtApi::ModelMetadataLookupCustomMetadataMap, metadata.get(),
                 runtime.allocator(), key, &value);
    properties[key] = runtime.TakeText(value);
  }
  return properties;
}

std::set<std::string> ExpectedInputs(const Manifest& manifest) {
  const bool stored = manifest.embedding_precision != "none";
  std::set<std::string> names = {stored ? "embeddings" : "input_ids", "position", "logits_index"};
  for (int64_t layer = 0; layer < manifest.model.num_hidden_layers; ++layer) {
    for (const char* name : {"past_key.", "past_value."})
      names.insert(name + std::to_string(layer));
  }
  const std::vector<ExpertPlane> planes = ListExpertPlanes(manifest);
  if (!planes.empty()) names.insert("expert_start");
  for (const ExpertPlane& plane : planes) names.insert(plane.name);
  return names;
}

void CheckInputs(const OnnxRuntime& runtime, const std::string& file,
                 const ort::OrtSession* session, const Manifest& manifest) {
  size_t count = 0;
  runtime.Call(file, &ort::OrtApi::SessionGetInputCount, session, &count);
  // As many inputs as can be expected at all, before any name is made.
  const size_t layers = static_cast<size_t>(manifest.model.num_hidden_layers);
  std::set<std::string> expected;
  if (count >= 2 * layers) expected = ExpectedInputs(manifest);
  bool same = count == expected.size();
  for (size_t i = 0; same && i < count; ++i) {
    char* name = nullptr;
    runtime.Call(file, &ort::OrtApi::SessionGetInputName, session, i, runtime.allocator(), &name);
    same = expected.count(runtime.TakeText(name)) != 0;
  }
  if (!same) {
    throw RunnerError(file + ": its inputs are not those of a " + manifest.model.architecture +
                          " model with " + std::to_string(layers) + " layers and " +
                          manifest.expert_precision + " experts",
                      "export again");
  }
}

OrtHandle<ort::OrtSessionOptions> MakeOptions(const OnnxRuntime& runtime,
                                              const OnnxGraphOptions& options) {
  const std::string what = "ONNX Runtime " + runtime.version() + " refuses options";
  auto made = runtime.Make<ort::OrtSessionOptions>(what, &ort::OrtApi::CreateSessionOptions);
  runtime.Call(what, &ort::OrtApi::SetIntraOpNumThreads, made.get(), options.threads);
  runtime.Call(what, &ort::OrtApi::SetInterOpNumThreads, made.get(), 1);
  runtime.Call(what, &ort::OrtApi::SetSessionLogSeverityLevel, made.get(),
               static_cast<int>(ort::ORT_LOGGING_LEVEL_FATAL));
  if (!options.operator_library.empty()) {
    runtime.Call(options.operator_library + ": cannot be loaded",
                 &ort::OrtApi::RegisterCustomOpsLibrary_V2, made.get(),
                 options.operator_library.c_str());
  }
  return made;
}

}  // namespace

OrtHandle<ort::OrtSession> LoadOnnxGraph(const OnnxRuntime& runtime,
                                         const OnnxGraphOptions& options,
                                         const Manifest& manifest) {
  const auto session_options = MakeOptions(runtime, options);
  const std::string& file = options.file;
  auto session = runtime.Make<ort::OrtSession>(
      file + ": ONNX Runtime " + runtime.version() + " cannot load it", &ort::OrtApi::CreateSession,
      runtime.environment(), file.c_str(), session_options.get());
  CheckGraphFacts(file, ReadProperties(runtime, file, session.get()), manifest, "onnx");
  CheckModelSizes(file, manifest.model);
  CheckInputs(runtime, file, session.get(), manifest);
  return session;
}

}  // namespace molkv::runner
