// What a dense graph says it was lowered from, compared with the manifest (docs/graph.md, "The
// bundle"; docs/executorch.md, "What it says about itself").

#ifndef MOLKV_RUNNER_GRAPH_FACTS_H_
#define MOLKV_RUNNER_GRAPH_FACTS_H_

#include <map>
#include <string>

#include "manifest.h"
#include "record.h"

namespace molkv::runner {

// A graph's `molkv.*` properties; one that is absent is missing or empty.
using GraphProperties = std::map<std::string, std::string>;

// All throw RunnerError.

// Compares one fact; `found` is null where the graph does not state it.
void CheckFact(const std::string& file, const std::string& name, const Json& found,
               const Json& expected);

// Identity, expert precision and configuration.
void CheckGraphFacts(const std::string& file, const GraphProperties& properties,
                     const Manifest& manifest);

// The value of a property as JSON text; null where it is absent.
Json PropertyValue(const GraphProperties& properties, const char* key);

// Sizes that are multiplied later; a consistent lie in graph and manifest must not overflow.
void CheckModelSizes(const std::string& file, const ModelEntry& model);

}  // namespace molkv::runner

#endif  // MOLKV_RUNNER_GRAPH_FACTS_H_
