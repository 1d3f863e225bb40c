#include "manifest.h"

#include <nlohmann/json.hpp>
#include <set>

#include "record.h"
#include "runner_error.h"

namespace molkv::runner {
namespace {

constexpr int64_t kSchemaVersion = 1;

void CheckVersion(const std::string& file, int64_t version) {
  if (version == kSchemaVersion) return;
  throw RunnerError(file + ": schema_version is " + std::to_string(version) +
                        ", this runtime reads " + std::to_string(kSchemaVersion),
                    version > kSchemaVersion ? "update molkv" : "export again");
}

ModelEntry ReadModel(Record record, const Json& fields) {
  ModelEntry model;
  model.architecture = record.Text("architecture");
  if (model.architecture != "dense" && model.architecture != "mole" &&
      model.architecture != "molkv") {
    record.Refuse("architecture", "is " + Quoted(model.architecture) + ", not one that is known");
  }
  model.vocab_size = record.Integer("vocab_size");
  model.hidden_size = record.Integer("hidden_size");
  model.num_hidden_layers = record.Integer("num_hidden_layers");
  model.num_attention_heads = record.Integer("num_attention_heads");
  model.num_key_value_heads = record.Integer("num_key_value_heads");
  model.max_position_embeddings = record.Integer("max_position_embeddings");
  model.num_experts = record.Integer("num_experts");
  model.expert_key_size = record.Integer("expert_key_size");
  model.expert_query_heads = record.Integer("expert_query_heads");
  model.expert_window = record.Integer("expert_window");
  // The graph has the rest inside.
  for (const char* name : {"model_type", "feed_forward", "expert_scoring"}) record.Text(name);
  for (const char* name : {"intermediate_size", "expert_intermediate_size"}) record.Integer(name);
  for (const char* name : {"rope_theta", "rms_norm_eps"}) record.Number(name);
  record.Boolean("tie_word_embeddings");
  record.Finish();
  model.fields = std::make_shared<const Json>(fields);
  return model;
}

std::string ReadQuantization(Record record) {
  std::string experts = record.IsNull("experts") ? "none" : record.Text("experts");
  if (experts != "none" && experts != "int8" && experts != "f16") {
    record.Refuse("experts", "is " + Quoted(experts) + ", not a precision that is known");
  }
  if (const std::string dense = record.Text("dense"); dense != "fp32") {
    record.Refuse("dense", "is " + Quoted(dense) + ", not a precision that is known");
  }
  record.Finish();
  return experts;
}

std::map<std::string, std::string> ReadBackends(Record record) {
  std::map<std::string, std::string> graphs;
  for (const std::string& name : record.Names()) {
    Record backend = record.Object(name.c_str());
    graphs[name] = backend.Text("graph");
    Record operators = backend.Object("operators");
    for (const std::string& domain : operators.Names()) operators.Integer(domain.c_str());
    backend.Finish();
  }
  return graphs;
}

TokenizerEntry ReadTokenizer(Record record) {
  TokenizerEntry tokenizer{record.Text("file"), record.Integer("vocabulary_size")};
  record.Finish();
  return tokenizer;
}

// The exporter's verdict: read strictly, but not used. --golden makes this device's own.
void CheckParity(Record record) {
  record.Boolean("passed");
  for (Record& rung : record.Objects("rungs")) {
    rung.Text("name");
    rung.Boolean("passed");
    rung.Number("figure");
    rung.Number("limit");
    if (rung.Has("at_least")) rung.Boolean("at_least");
    if (rung.Has("detail")) rung.Text("detail");
    rung.Finish();
  }
  record.Finish();
}

bool IsBareName(const std::string& name) {
  return !name.empty() && name != "." && name != ".." &&
         name.find_first_of(std::string("/\0", 2)) == std::string::npos;
}

std::vector<FileEntry> ReadFiles(const std::string& file, std::vector<Record> records) {
  std::vector<FileEntry> files;
  for (Record& record : records) {
    files.push_back({record.Text("name"), record.Integer("bytes"), record.Text("sha256")});
    record.Finish();
    if (!IsBareName(files.back().name)) {
      throw RunnerError(file + ": file name " + Quoted(files.back().name) + " is not a bare name",
                        "a bundle names files of its own folder only; export again");
    }
  }
  return files;
}

void CheckListed(const std::string& file, const Manifest& manifest) {
  std::set<std::string> named(manifest.experts.begin(), manifest.experts.end());
  named.insert(manifest.golden);
  for (const auto& [backend, graph] : manifest.graphs) named.insert(graph);
  if (manifest.tokenizer) named.insert(manifest.tokenizer->file);
  for (const FileEntry& entry : manifest.files) named.erase(entry.name);
  if (named.empty()) return;
  throw RunnerError(file + ": files does not list " + Quoted(*named.begin()), "export again");
}

}  // namespace

Manifest ReadManifest(const std::string& folder) {
  const std::string file = folder + "/manifest.json";
  const Json content = ReadJson(file);
  Record record(file, "", content);
  CheckVersion(file, record.Integer("schema_version"));

  Manifest manifest;
  Record producer = record.Object("producer");
  for (const std::string& tool : producer.Names()) producer.Text(tool.c_str());
  manifest.identity = record.Text("identity");
  Record model = record.Object("model");
  manifest.model = ReadModel(model, content["model"]);
  manifest.expert_precision = ReadQuantization(record.Object("quantization"));
  manifest.experts = record.Texts("experts");
  manifest.graphs = ReadBackends(record.Object("backends"));
  if (!record.IsNull("tokenizer")) manifest.tokenizer = ReadTokenizer(record.Object("tokenizer"));
  manifest.golden = record.Text("golden");
  manifest.files = ReadFiles(file, record.Objects("files"));
  if (record.Has("parity") && !record.IsNull("parity")) CheckParity(record.Object("parity"));
  record.Finish();
  CheckListed(file, manifest);
  return manifest;
}

}  // namespace molkv::runner
