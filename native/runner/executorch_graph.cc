#include "executorch_graph.h"

#include "executorch_program.h"
#include "executorch_runtime.h"
#include "molkv_handles.h"
#include "runner_error.h"
#include "statistics.h"

namespace molkv::runner {
namespace {

using ::executorch::aten::ScalarType;

// What the program was compiled for; CheckProgram compares it with the program itself.
const LimitsEntry& Limits(const Manifest& manifest) {
  const auto& limits = manifest.backends.at("executorch").limits;
  constexpr int64_t kMost = int64_t{1} << 24;
  if (limits && limits->chunk >= 1 && limits->chunk <= kMost) return *limits;
  const std::string found = limits ? "chunk is " + std::to_string(limits->chunk) : "is missing";
  throw RunnerError("manifest.json: backends.executorch.limits " + found, "export again");
}

ScalarType ElementType(molkv_data_type dtype) {
  if (dtype == MOLKV_INT8) return ScalarType::Char;
  if (dtype == MOLKV_INT4) return ScalarType::Byte;
  return dtype == MOLKV_FLOAT16 ? ScalarType::Half : ScalarType::Float;
}

}  // namespace

ExecutorchGraph::ExecutorchGraph(const ExecutorchGraphOptions& options, const Manifest& manifest)
    : DenseGraph(manifest.model, static_cast<size_t>(Limits(manifest).chunk)) {
  if (!options.operator_library.empty()) LoadExecutorchOperators(options.operator_library);
  StartExecutorch();  // afterwards: such a library may direct messages elsewhere
  RequireExecutorch(manifest.backends.at("executorch"));
  SetExecutorchThreads(options.threads);
  program_ = std::make_unique<ExecutorchProgram>(options.file, manifest);
  planes_ = ListExpertPlanes(manifest);
}

ExecutorchGraph::~ExecutorchGraph() = default;

const float* ExecutorchGraph::Run(const NewTokens& tokens, int64_t position,
                                  const molkv_window* window,
                                  const std::vector<int64_t>& logits_index) {
  const auto count = static_cast<int64_t>(tokens.count);
  const bool single = count == 1 && logits_index.size() == 1;
  logits_index_ = logits_index;
  position_ = position;
  // In the order of the method's inputs.
  ProgramInputs inputs;
  if (tokens.embeddings != nullptr) {
    const int64_t size = model().hidden_size;
    embeddings_.assign(tokens.embeddings, tokens.embeddings + count * size);
    inputs.Add(embeddings_.data(), {1, count, size}, ScalarType::Float);
  } else {
    token_ids_.assign(tokens.ids, tokens.ids + count);
    inputs.Add(token_ids_.data(), {1, count}, ScalarType::Long);
  }
  inputs.Add(&position_, {1}, ScalarType::Long);
  if (window != nullptr) inputs.Add(&expert_start_, {1}, ScalarType::Long);
  for (ExpertPlane& wanted : planes_) {
    molkv_plane plane;
    CallMolkv(molkv_window_plane, window, wanted.layer, wanted.kind, &plane);
    wanted.shape[0] = static_cast<int64_t>(plane.rows);
    inputs.Add(plane.data, wanted.shape, ElementType(wanted.dtype));
  }
  if (!single) {
    const auto rows = static_cast<int64_t>(logits_index_.size());
    inputs.Add(logits_index_.data(), {rows}, ScalarType::Long);
  }
  const Stopwatch engine(engine_seconds_sum());
  return single ? program_->Decode(inputs) : program_->Prefill(inputs);
}

}  // namespace molkv::runner
