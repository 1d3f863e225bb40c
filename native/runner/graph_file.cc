#include "graph_file.h"

#include <nlohmann/json.hpp>
#include <set>

#include "record.h"
#include "runner_error.h"

namespace molkv::runner {
namespace {

// The graph states what it was lowered from.
class Metadata {
 public:
  Metadata(const OnnxRuntime& runtime, const std::string& file, const ort::OrtSession* session)
      : runtime_(runtime),
        metadata_(runtime.Make<ort::OrtModelMetadata>(
            file + ": metadata", &ort::OrtApi::SessionGetModelMetadata, session)) {}

  // The value of a property; "" if there is none.
  std::string Property(const char* key) const {
    char* value = nullptr;
    runtime_.Call("metadata", &ort::OrtApi::ModelMetadataLookupCustomMetadataMap, metadata_.get(),
                  runtime_.allocator(), key, &value);
    return runtime_.TakeText(value);
  }

 private:
  const OnnxRuntime& runtime_;
  OrtHandle<ort::OrtModelMetadata> metadata_;
};

// Text without quotes, such as an identity.
std::string Plain(const Json& value) {
  if (value.is_null()) return "missing";
  return value.is_string() ? value.get<std::string>() : Shown(value);
}

void CheckFact(const std::string& file, const std::string& name, const Json& found,
               const Json& expected) {
  if (found == expected) return;
  throw RunnerError(
      file + ": " + name + " is " + Plain(found) + ", the manifest says " + Plain(expected),
      "graph and manifest must come from one export");
}

Json PropertyValue(const Metadata& metadata, const char* key) {
  const std::string value = metadata.Property(key);
  return value.empty() ? Json() : Json(value);
}

void CheckMetadata(const std::string& file, const Metadata& metadata, const Manifest& manifest) {
  CheckFact(file, "identity", PropertyValue(metadata, "molkv.identity"), manifest.identity);
  CheckFact(file, "experts", PropertyValue(metadata, "molkv.experts"), manifest.expert_precision);
  const Json config = Json::parse(metadata.Property("molkv.config"), nullptr, false);
  const Json absent;
  for (const auto& [name, expected] : manifest.model.fields->items()) {
    const bool there = config.is_object() && config.contains(name);
    // By reference: a copy of what is nested deeply would not fit on the stack.
    CheckFact(file, name, there ? config[name] : absent, expected);
  }
}

// Sizes that are multiplied later; a consistent lie in graph and manifest must not overflow.
void CheckSizes(const std::string& file, const ModelEntry& model) {
  const bool experts = model.architecture != "dense";
  const struct {
    const char* name;
    int64_t value;
    int64_t least;
  } sizes[] = {
      {"vocab_size", model.vocab_size, 1},
      {"hidden_size", model.hidden_size, 1},
      {"num_hidden_layers", model.num_hidden_layers, 1},
      {"num_attention_heads", model.num_attention_heads, 1},
      {"num_key_value_heads", model.num_key_value_heads, 1},
      {"max_position_embeddings", model.max_position_embeddings, 1},
      {"num_experts", model.num_experts, experts ? 1 : 0},
      {"expert_window", model.expert_window, experts ? 1 : 0},
      {"expert_key_size", model.expert_key_size, 0},
      {"expert_query_heads", model.expert_query_heads, 0},
  };
  constexpr int64_t kMost = int64_t{1} << 24;
  for (const auto& size : sizes) {
    if (size.value >= size.least && size.value <= kMost) continue;
    throw RunnerError(file + ": " + size.name + " is " + std::to_string(size.value) + ", must be " +
                          std::to_string(size.least) + " to " + std::to_string(kMost),
                      "export again");
  }
}

std::set<std::string> ExpectedInputs(const Manifest& manifest) {
  const bool experts = manifest.model.architecture != "dense";
  const bool keys = manifest.model.architecture == "molkv";
  const bool scales = manifest.expert_precision == "int8";
  std::set<std::string> names = {"input_ids", "position", "logits_index"};
  if (experts) names.insert("expert_start");
  for (int64_t layer = 0; layer < manifest.model.num_hidden_layers; ++layer) {
    const auto add = [&](bool there, const char* name) {
      if (there) names.insert(std::string(name) + "." + std::to_string(layer));
    };
    add(true, "past_key");
    add(true, "past_value");
    add(keys, "expert_keys");
    add(keys && scales, "expert_key_scales");
    add(experts, "expert_values");
    add(experts && scales, "expert_value_scales");
  }
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
                                              const GraphOptions& options) {
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

OrtHandle<ort::OrtSession> LoadGraph(const OnnxRuntime& runtime, const GraphOptions& options,
                                     const Manifest& manifest) {
  const auto session_options = MakeOptions(runtime, options);
  const std::string& file = options.file;
  auto session = runtime.Make<ort::OrtSession>(
      file + ": ONNX Runtime " + runtime.version() + " cannot load it", &ort::OrtApi::CreateSession,
      runtime.environment(), file.c_str(), session_options.get());
  CheckMetadata(file, Metadata(runtime, file, session.get()), manifest);
  CheckSizes(file, manifest.model);
  CheckInputs(runtime, file, session.get(), manifest);
  return session;
}

}  // namespace molkv::runner
