#include "executorch_program.h"

#include <executorch/runtime/core/error.h>
#include <executorch/runtime/executor/program.h>

#include <new>
#include <nlohmann/json.hpp>
#include <utility>

#include "executorch_runtime.h"
#include "graph_facts.h"
#include "record.h"
#include "runner_error.h"

namespace molkv::runner {
namespace {

using ::executorch::extension::Module;
using ::executorch::runtime::Error;

constexpr char kMetadata[] = "molkv_metadata";
constexpr char kPrefill[] = "prefill";
constexpr char kDecode[] = "decode";

// The strings of an object; nothing where the text is no such thing.
GraphProperties ParseProperties(std::string_view text) {
  GraphProperties properties;
  const Json object = Json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (!object.is_object()) return properties;
  for (const auto& [name, value] : object.items()) {
    if (value.is_string()) properties[name] = value.get<std::string>();
  }
  return properties;
}

}  // namespace

void ProgramInputs::Add(void* data, const std::vector<int64_t>& shape,
                        ::executorch::aten::ScalarType type) {
  const std::vector<::executorch::aten::SizesType> sizes(shape.begin(), shape.end());
  tensors_.push_back(::executorch::extension::from_blob(data, sizes, type));
  values_.emplace_back(tensors_.back());
}

ExecutorchProgram::ExecutorchProgram(const std::string& file, const Manifest& manifest)
    : file_(file),
      // Methods share their arenas, and with them the self-attention cache.
      module_(file, Module::LoadMode::Mmap, nullptr, nullptr, nullptr,
              /*share_memory_arenas=*/true) {
  Load();
  CheckFacts(manifest);
  CheckModelSizes(file, manifest.model);
  const int64_t vocabulary_size = manifest.model.vocab_size;
  const int64_t chunk = manifest.backends.at("executorch").limits->chunk;
  prefill_logits_ = BindLogits(kPrefill, chunk, vocabulary_size);
  decode_logits_ = BindLogits(kDecode, 1, vocabulary_size);
}

const float* ExecutorchProgram::Prefill(const ProgramInputs& inputs) {
  Call(kPrefill, inputs);
  return prefill_logits_.get();
}

const float* ExecutorchProgram::Decode(const ProgramInputs& inputs) {
  Call(kDecode, inputs);
  return decode_logits_.get();
}

void ExecutorchProgram::Load() {
  using ::executorch::runtime::Program;
  const Error error = module_.load(Program::Verification::InternalConsistency);
  if (error != Error::Ok) Refuse("cannot load it", error);
  const auto names = module_.method_names();
  if (!names.ok()) Refuse("cannot load it", names.error());
  for (const char* method : {kMetadata, kPrefill, kDecode}) {
    if (names->count(method) == 0) {
      throw RunnerError(file_ + ": has no method " + method, "export with this version of molkv");
    }
    const Error failure = module_.load_method(method);
    if (failure != Error::Ok) Refuse("cannot load it", failure);
  }
}

void ExecutorchProgram::CheckFacts(const Manifest& manifest) {
  const auto said = module_.execute(kMetadata);
  if (!said.ok()) Refuse("cannot run it", said.error());
  GraphProperties properties;
  if (said->size() == 1 && said->front().isString()) {
    properties = ParseProperties(said->front().toString());
  }
  CheckGraphFacts(file_, properties, manifest, "executorch");
}

ExecutorchProgram::Memory ExecutorchProgram::BindLogits(const char* method, int64_t rows,
                                                        int64_t vocabulary_size) {
  // calloc leaves pages untouched until a step writes them: few steps want all rows.
  Memory memory(
      static_cast<float*>(std::calloc(static_cast<size_t>(rows * vocabulary_size), sizeof(float))));
  if (memory == nullptr) throw std::bad_alloc();
  ProgramInputs output;
  output.Add(memory.get(), {1, rows, vocabulary_size}, ::executorch::aten::ScalarType::Float);
  const Error error = module_.set_output(method, output.values().front());
  if (error != Error::Ok) Refuse("refuses the memory for its logits", error);
  return memory;
}

void ExecutorchProgram::Call(const char* method, const ProgramInputs& inputs) {
  const auto outputs = module_.execute(method, inputs.values());
  if (!outputs.ok()) Refuse("cannot run it", outputs.error());
}

void ExecutorchProgram::Refuse(const char* problem, Error error) const {
  const std::string words = TakeExecutorchMessage();
  std::string name = ::executorch::runtime::to_string(error);
  name.erase(0, name.rfind(':') + 1);  // without the "Error::"
  throw RunnerError(file_ + ": ExecuTorch " MOLKV_EXECUTORCH_VERSION " " + problem + ": " + name +
                        (words.empty() ? "" : ": " + words),
                    "copy the bundle again, or build this program with the ExecuTorch that the "
                    "manifest's producer names");
}

}  // namespace molkv::runner
