#include "error.h"

#include <cstring>

namespace molkv {
namespace {

// Bytes of a message that are kept if there is room for `most`: never part of a UTF-8 character.
size_t KeptSize(const char* message, size_t most) noexcept {
  const size_t size = ::strnlen(message, most + 1);
  if (size <= most) {
    return size;
  }
  constexpr size_t kMostFollowing = 3;  // a character's bytes after its first
  for (size_t kept = most; most - kept <= kMostFollowing && kept > 0; --kept) {
    const bool following = (static_cast<unsigned char>(message[kept]) & 0xC0) == 0x80;
    if (!following) {
      return kept;
    }
  }
  return most;  // no UTF-8 anyway
}

}  // namespace

molkv_status Report(molkv_error* error, molkv_status status, const char* message) noexcept {
  if (error != nullptr) {
    error->status = status;
    const size_t size = KeptSize(message, sizeof(error->message) - 1);
    std::memcpy(error->message, message, size);
    error->message[size] = 0;
  }
  return status;
}

}  // namespace molkv

extern "C" uint32_t molkv_abi_version(void) { return MOLKV_ABI_VERSION; }
