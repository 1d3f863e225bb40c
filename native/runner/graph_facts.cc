#include "graph_facts.h"

#include <cstdint>
#include <nlohmann/json.hpp>

#include "record.h"
#include "runner_error.h"

namespace molkv::runner {
namespace {

// Text without quotes, such as an identity.
std::string Plain(const Json& value) {
  if (value.is_null()) return "missing";
  return value.is_string() ? value.get<std::string>() : Shown(value);
}

// Compares one fact; `found` is null where the graph does not state it.
void CheckFact(const std::string& file, const std::string& name, const Json& found,
               const Json& expected) {
  if (found == expected) return;
  throw RunnerError(
      file + ": " + name + " is " + Plain(found) + ", the manifest says " + Plain(expected),
      "graph and manifest must come from one export");
}

// A property's text as JSON; null where it is absent.
Json PropertyText(const GraphProperties& properties, const char* key) {
  const auto found = properties.find(key);
  return found == properties.end() || found->second.empty() ? Json() : Json(found->second);
}

// Compares the fields of a property that is a JSON object.
void CheckFields(const std::string& file, const std::string& prefix,
                 const GraphProperties& properties, const char* key, const Json& expected) {
  const auto text = properties.find(key);
  const Json record = Json::parse(text == properties.end() ? "" : text->second, nullptr,
                                  /*allow_exceptions=*/false);
  const Json absent;
  for (const auto& [name, value] : expected.items()) {
    const bool there = record.is_object() && record.contains(name);
    // By reference: a copy of what is nested deeply would not fit on the stack.
    CheckFact(file, prefix + name, there ? record[name] : absent, value);
  }
}

}  // namespace

void CheckGraphFacts(const std::string& file, const GraphProperties& properties,
                     const Manifest& manifest, const std::string& backend) {
  const BackendEntry& entry = manifest.backends.at(backend);
  CheckFact(file, "identity", PropertyText(properties, "molkv.identity"), manifest.identity);
  CheckFact(file, "experts", PropertyText(properties, "molkv.experts"), manifest.expert_precision);
  const bool stored = manifest.embedding_precision != "none";
  CheckFact(file, "embedding", PropertyText(properties, "molkv.embedding"),
            stored ? Json("storage") : Json());
  CheckFact(file, "dense", PropertyText(properties, "molkv.dense"), entry.dense);
  CheckFact(file, "cache", PropertyText(properties, "molkv.cache"), entry.cache);
  CheckFields(file, "", properties, "molkv.config", *manifest.model.fields);
  if (entry.limits) {
    const Json limits = {{"chunk", entry.limits->chunk},
                         {"context", entry.limits->context},
                         {"cache_tokens", entry.limits->cache_tokens},
                         {"window", entry.limits->window}};
    CheckFields(file, "limits.", properties, "molkv.limits", limits);
  }
}

void CheckModelSizes(const std::string& file, const ModelEntry& model) {
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

}  // namespace molkv::runner
