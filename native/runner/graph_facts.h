// What a dense graph says it was lowered from, compared with the manifest (docs/graph.md, "The
// bundle").

#ifndef MOLKV_RUNNER_GRAPH_FACTS_H_
#define MOLKV_RUNNER_GRAPH_FACTS_H_

#include <map>
#include <string>

#include "manifest.h"

namespace molkv::runner {

// A graph's `molkv.*` properties; one that is absent is missing or empty.
using GraphProperties = std::map<std::string, std::string>;

// Both throw RunnerError.

// Identity, precisions, configuration, and limits where the manifest has them for the backend.
void CheckGraphFacts(const std::string& file, const GraphProperties& properties,
                     const Manifest& manifest, const std::string& backend);

// Sizes that are multiplied later; a consistent lie in graph and manifest must not overflow.
void CheckModelSizes(const std::string& file, const ModelEntry& model);

}  // namespace molkv::runner

#endif  // MOLKV_RUNNER_GRAPH_FACTS_H_
