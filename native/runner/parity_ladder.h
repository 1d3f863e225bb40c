// Whether this device computes what the bundle's golden cases recorded (docs/graph.md, "The parity
// ladder").

#ifndef MOLKV_RUNNER_PARITY_LADDER_H_
#define MOLKV_RUNNER_PARITY_LADDER_H_

#include <cstddef>
#include <functional>
#include <string>
#include <vector>

#include "dense_graph.h"
#include "golden.h"
#include "manifest.h"
#include "molkv_handles.h"

namespace molkv::runner {

// One rung: `figure` was measured, and passes if it is at most `limit`. One that is not comparable
// was not climbed, and `detail` says why; it neither passes nor fails.
struct Rung {
  std::string name;
  double figure = 0;
  double limit = 0;
  std::string detail;
  bool comparable = true;

  bool passed() const { return figure <= limit; }
};

// What the ladder runs on; blob and tokenizer are null where the bundle has none.
struct LadderParts {
  DenseGraph& graph;
  molkv_blob* blob;
  const molkv_tokenizer* tokenizer;
  size_t chunk;        // the most tokens that prefill runs at once, where a rung does not say
  BackendEntry entry;  // what the manifest says about the graph
};

// Climbs the rungs 1, 2, 4, 5 and 6 and hands out each as it is done. The golden logits and tokens
// are those of float32 weights, so with others these rungs are not comparable. Throws RunnerError
// where something cannot be run at all.
void ClimbParityLadder(const LadderParts& parts, const Golden& golden,
                       const std::function<void(const Rung& rung)>& take);

}  // namespace molkv::runner

#endif  // MOLKV_RUNNER_PARITY_LADDER_H_
