// XNNPACK's weights cache, which is off where ExecuTorch was not built with it, as in its Python
// wheel. XNNPACK packs weights into an order of its own; with the cache, methods that have the same
// weights share one packed copy, without it each has its own (docs/executorch.md, "Memory").

#include <executorch/runtime/backend/interface.h>
#include <executorch/runtime/backend/options.h>

using ::executorch::runtime::BackendOptions;
using ::executorch::runtime::Error;

// Turns the cache on or off for methods that are loaded from now on. Returns 0, or ExecuTorch's
// error.
extern "C" __attribute__((visibility("default"))) int molkv_executorch_cache_weights(int enabled) {
  BackendOptions<1> options;
  Error error = options.set_option("weight_cache_enabled", enabled != 0);
  if (error == Error::Ok) {
    error = ::executorch::runtime::set_option("XnnpackBackend", options.view());
  }
  return static_cast<int>(error);
}
