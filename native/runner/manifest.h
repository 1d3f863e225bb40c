// manifest.json: what a bundle holds and for which model (docs/graph.md, "manifest.json").

#ifndef MOLKV_RUNNER_MANIFEST_H_
#define MOLKV_RUNNER_MANIFEST_H_

#include <cstdint>
#include <map>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <vector>

namespace molkv::runner {

// A file of the bundle.
struct FileEntry {
  std::string name;
  int64_t bytes = 0;
  std::string sha256;
};

// The hyper-parameters that a runtime needs. `fields` holds all of them, as written.
struct ModelEntry {
  std::string architecture;
  int64_t vocab_size = 0;
  int64_t hidden_size = 0;
  int64_t num_hidden_layers = 0;
  int64_t num_attention_heads = 0;
  int64_t num_key_value_heads = 0;
  int64_t max_position_embeddings = 0;
  int64_t num_experts = 0;
  int64_t expert_key_size = 0;
  int64_t expert_query_heads = 0;
  int64_t expert_window = 0;
  std::shared_ptr<const nlohmann::json> fields;
};

// The sizes that a graph was compiled for.
struct LimitsEntry {
  int64_t chunk = 0;         // the most new tokens of one call
  int64_t context = 0;       // the most tokens of a sequence
  int64_t cache_tokens = 0;  // positions of the self-attention cache
  int64_t window = 0;        // W, or 0 without experts
};

// One backend's dense graph and what it needs to run.
struct BackendEntry {
  std::string graph;
  std::string dense;                   // precision of its weights, such as "fp32"
  std::string cache;                   // precision of its self-attention cache
  std::vector<std::string> operators;  // operator sets, or single operators for ExecuTorch
  std::vector<std::string> delegates;
  std::optional<LimitsEntry> limits;  // none: it takes any size
};

struct TokenizerEntry {
  std::string file;
  int64_t vocabulary_size = 0;
};

struct Manifest {
  std::string identity;
  ModelEntry model;
  std::string expert_precision;     // "int8", "int4", "f16", or "none" without experts
  std::string embedding_precision;  // of rows that carry it, "f16"; "none" if the graphs have it
  std::vector<std::string> experts;
  std::map<std::string, BackendEntry> backends;
  std::optional<TokenizerEntry> tokenizer;
  std::string golden;
  std::vector<FileEntry> files;
};

// Reads and checks a bundle's manifest. Throws RunnerError if it is missing, no JSON, of another
// schema version, or names files outside the folder.
Manifest ReadManifest(const std::string& folder);

}  // namespace molkv::runner

#endif  // MOLKV_RUNNER_MANIFEST_H_
