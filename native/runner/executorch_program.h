// A loaded ExecuTorch program: its methods, and the memory of their logits.

#ifndef MOLKV_RUNNER_EXECUTORCH_PROGRAM_H_
#define MOLKV_RUNNER_EXECUTORCH_PROGRAM_H_

#include <executorch/extension/module/module.h>
#include <executorch/extension/tensor/tensor.h>

#include <cstdint>
#include <cstdlib>
#include <memory>
#include <string>
#include <vector>

#include "manifest.h"

namespace molkv::runner {

// Inputs of one call, by their place; views of the caller's memory.
class ProgramInputs {
 public:
  void Add(void* data, const std::vector<int64_t>& shape, ::executorch::aten::ScalarType type);

  const std::vector<::executorch::runtime::EValue>& values() const { return values_; }

 private:
  std::vector<::executorch::extension::TensorPtr> tensors_;
  std::vector<::executorch::runtime::EValue> values_;
};

// All functions throw RunnerError.
class ExecutorchProgram {
 public:
  // Loads the program and checks that it is the manifest's.
  ExecutorchProgram(const std::string& file, const Manifest& manifest);

  // Each returns the logits, overwritten by its next call: float32 [R, V] and [1, V].
  const float* Prefill(const ProgramInputs& inputs);
  const float* Decode(const ProgramInputs& inputs);

 private:
  struct FreeMemory {
    void operator()(float* memory) const { std::free(memory); }
  };
  using Memory = std::unique_ptr<float, FreeMemory>;

  void Load();
  void CheckFacts(const Manifest& manifest);
  Memory BindLogits(const char* method, int64_t rows, int64_t vocabulary_size);
  void Call(const char* method, const ProgramInputs& inputs);
  [[noreturn]] void Refuse(const char* problem, ::executorch::runtime::Error error) const;

  std::string file_;
  ::executorch::extension::Module module_;
  Memory prefill_logits_;
  Memory decode_logits_;
};

}  // namespace molkv::runner

#endif  // MOLKV_RUNNER_EXECUTORCH_PROGRAM_H_
