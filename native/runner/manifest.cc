#include "manifest.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <set>
#include <utility>

#include "record.h"
#include "runner_error.h"

namespace molkv::runner {
namespace {

constexpr int64_t kSchemaVersion = 1;
const std::set<std::string> kDensePrecisions = {"fp32", "fp16", "int8", "int4", "palettized4"};
const std::set<std::string> kCachePrecisions = {"fp32", "fp16", "int8"};

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

// How the precision of the experts was chosen: read strictly, but not used.
void CheckCalibration(Record record) {
  for (const char* name : {"max_kl", "kl_divergence", "same_top1"}) record.Number(name);
  record.Integer("tokens");
  record.Finish();
}

void ReadQuantization(Record record, Manifest* manifest) {
  std::string experts = record.IsNull("experts") ? "none" : record.Text("experts");
  if (experts != "none" && experts != "int8" && experts != "int4" && experts != "f16") {
    record.Refuse("experts", "is " + Quoted(experts) + ", not a precision that is known");
  }
  std::string embedding = "none";
  if (record.Has("embedding") && !record.IsNull("embedding")) embedding = record.Text("embedding");
  if (embedding != "none" && embedding != "f16") {
    record.Refuse("embedding", "is " + Quoted(embedding) + ", not a precision that is known");
  }
  if (record.Has("calibration") && !record.IsNull("calibration")) {
    CheckCalibration(record.Object("calibration"));
  }
  record.Finish();
  manifest->expert_precision = std::move(experts);
  manifest->embedding_precision = std::move(embedding);
}

LimitsEntry ReadLimits(Record record) {
  LimitsEntry limits;
  limits.chunk = record.Integer("chunk");
  limits.context = record.Integer("context");
  limits.cache_tokens = record.Integer("cache_tokens");
  limits.window = record.Integer("window");
  record.Finish();
  return limits;
}

BackendEntry ReadBackend(Record record) {
  BackendEntry backend;
  backend.graph = record.Text("graph");
  backend.dense = record.Text("dense");
  if (kDensePrecisions.count(backend.dense) == 0) {
    record.Refuse("dense", "is " + Quoted(backend.dense) + ", not a precision that is known");
  }
  backend.cache = record.Text("cache");
  if (kCachePrecisions.count(backend.cache) == 0) {
    record.Refuse("cache", "is " + Quoted(backend.cache) + ", not a precision that is known");
  }
  Record operators = record.Object("operators");
  backend.operators = operators.Names();
  for (const std::string& name : backend.operators) operators.Integer(name.c_str());
  backend.delegates = record.Texts("delegates");
  if (!record.IsNull("limits")) backend.limits = ReadLimits(record.Object("limits"));
  if (!record.IsNull("compute_units")) record.Text("compute_units");
  record.Finish();
  return backend;
}

std::map<std::string, BackendEntry> ReadBackends(Record record) {
  std::map<std::string, BackendEntry> backends;
  for (const std::string& name : record.Names()) {
    backends[name] = ReadBackend(record.Object(name.c_str()));
  }
  return backends;
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

// Whether a name is bare, or that of a file in a graph that is a folder.
bool StaysInside(const std::string& name, const std::map<std::string, BackendEntry>& backends) {
  const size_t end = name.find('/');
  if (end == std::string::npos) return IsBareName(name);
  const auto is_first = [&](const auto& entry) {
    return entry.second.graph == name.substr(0, end);
  };
  if (std::none_of(backends.begin(), backends.end(), is_first)) return false;
  for (size_t begin = 0;;) {
    const size_t stop = name.find('/', begin);
    if (!IsBareName(name.substr(begin, stop - begin))) return false;
    if (stop == std::string::npos) return true;
    begin = stop + 1;
  }
}

std::vector<FileEntry> ReadFiles(const std::string& file, std::vector<Record> records,
                                 const std::map<std::string, BackendEntry>& backends) {
  std::vector<FileEntry> files;
  for (Record& record : records) {
    files.push_back({record.Text("name"), record.Integer("bytes"), record.Text("sha256")});
    record.Finish();
    if (!StaysInside(files.back().name, backends)) {
      throw RunnerError(file + ": file name " + Quoted(files.back().name) + " is not a bare name",
                        "a bundle names files of its own folder only; export again");
    }
  }
  return files;
}

void CheckListed(const std::string& file, const Manifest& manifest) {
  std::set<std::string> named(manifest.experts.begin(), manifest.experts.end());
  named.insert(manifest.golden);
  for (const auto& [name, backend] : manifest.backends) named.insert(backend.graph);
  if (manifest.tokenizer) named.insert(manifest.tokenizer->file);
  for (const FileEntry& entry : manifest.files) {
    named.erase(entry.name);
    named.erase(entry.name.substr(0, entry.name.find('/')));  // a graph that is a folder
  }
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
  ReadQuantization(record.Object("quantization"), &manifest);
  manifest.experts = record.Texts("experts");
  manifest.backends = ReadBackends(record.Object("backends"));
  if (!record.IsNull("tokenizer")) manifest.tokenizer = ReadTokenizer(record.Object("tokenizer"));
  manifest.golden = record.Text("golden");
  manifest.files = ReadFiles(file, record.Objects("files"), manifest.backends);
  if (record.Has("parity") && !record.IsNull("parity")) CheckParity(record.Object("parity"));
  record.Finish();
  if (manifest.embedding_precision != "none" &&
      (manifest.experts.empty() || manifest.expert_precision == "none")) {
    throw RunnerError(file + ": quantization.embedding is " + manifest.embedding_precision +
                          ", but there are no expert rows that carry it",
                      "export again");
  }
  CheckListed(file, manifest);
  return manifest;
}

}  // namespace molkv::runner
