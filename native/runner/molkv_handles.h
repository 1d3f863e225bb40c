// libmolkv's handles as owners, and its status codes as exceptions.

#ifndef MOLKV_RUNNER_MOLKV_HANDLES_H_
#define MOLKV_RUNNER_MOLKV_HANDLES_H_

#include <memory>

#include "molkv/molkv.h"
#include "runner_error.h"

namespace molkv::runner {

// Gives a handle back with its own function.
struct MolkvRelease {
  void operator()(molkv_blob* blob) const { molkv_blob_close(blob); }
  void operator()(molkv_prefetch* prefetch) const { molkv_prefetch_free(prefetch); }
  void operator()(molkv_window* window) const { molkv_window_free(window); }
  void operator()(molkv_sampler* sampler) const { molkv_sampler_free(sampler); }
  void operator()(molkv_tokenizer* tokenizer) const { molkv_tokenizer_close(tokenizer); }
  void operator()(molkv_text_stream* stream) const { molkv_text_stream_free(stream); }
};

template <typename Handle>
using MolkvHandle = std::unique_ptr<Handle, MolkvRelease>;

// Calls a function of molkv.h that reports a status, and throws what it reports.
template <typename Function, typename... Arguments>
void CallMolkv(Function function, Arguments... arguments) {
  molkv_error error;
  if (function(arguments..., &error) != MOLKV_OK) throw RunnerError(error.message);
}

// The same for a function that makes a handle, which it hands out through its last argument.
template <typename Handle, typename Function, typename... Arguments>
MolkvHandle<Handle> MakeMolkv(Function function, Arguments... arguments) {
  Handle* handle = nullptr;
  CallMolkv(function, arguments..., &handle);
  return MolkvHandle<Handle>(handle);
}

}  // namespace molkv::runner

#endif  // MOLKV_RUNNER_MOLKV_HANDLES_H_
