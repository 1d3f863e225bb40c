// Memory that starts on a page, as direct I/O needs.

#ifndef MOLKV_SRC_ALIGNED_BUFFER_H_
#define MOLKV_SRC_ALIGNED_BUFFER_H_

#include <cstdint>
#include <cstdlib>
#include <memory>
#include <new>

namespace molkv {

struct FreeMemory {
  void operator()(void* memory) const { std::free(memory); }
};

using AlignedBuffer = std::unique_ptr<uint8_t, FreeMemory>;

inline constexpr uint64_t kBufferAlignment = 4096;

// `size` bytes, not initialized.
inline AlignedBuffer MakeAlignedBuffer(uint64_t size) {
  void* memory = nullptr;
  if (size > SIZE_MAX || posix_memalign(&memory, kBufferAlignment, size == 0 ? 1 : size) != 0) {
    throw std::bad_alloc();
  }
  return AlignedBuffer(static_cast<uint8_t*>(memory));
}

}  // namespace molkv

#endif  // MOLKV_SRC_ALIGNED_BUFFER_H_
