#include "error.h"

#include <cstdio>

namespace molkv {

molkv_status Report(molkv_error* error, molkv_status status, const char* message) noexcept {
  if (error != nullptr) {
    error->status = status;
    std::snprintf(error->message, sizeof(error->message), "%s", message);
  }
  return status;
}

}  // namespace molkv

extern "C" uint32_t molkv_abi_version(void) { return MOLKV_ABI_VERSION; }
