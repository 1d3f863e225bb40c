// Preloaded into a process, lets every read of an expert blob be interrupted or come back short.

#include <dlfcn.h>
#include <fcntl.h>
#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>

namespace {

std::atomic<unsigned> calls{0};
std::atomic<unsigned> disturbed{0};

bool IsBlob(int descriptor) {
  char link[64];
  char path[4096];
  std::snprintf(link, sizeof link, "/proc/self/fd/%d", descriptor);
  const ssize_t length = readlink(link, path, sizeof path);
  constexpr char kSuffix[] = ".molkv";
  constexpr ssize_t kLength = sizeof kSuffix - 1;
  return length >= kLength && std::memcmp(path + length - kLength, kSuffix, kLength) == 0;
}

// Of three calls in turn, one is interrupted, one reads less than asked for, one is left alone.
template <typename Read>
ssize_t Disturbed(int descriptor, void* target, size_t size, Read read) {
  if (!IsBlob(descriptor)) return read(target, size);
  const unsigned turn = calls++ % 3;
  if (turn == 0) {
    ++disturbed;
    errno = EINTR;
    return -1;
  }
  if (turn == 1 && size > 1) {
    ++disturbed;
    return read(target, std::min<size_t>(size - 1, size / 2 + 1));
  }
  return read(target, size);
}

ssize_t PositionalRead(int descriptor, void* target, size_t size, off64_t position) {
  using Function = ssize_t (*)(int, void*, size_t, off64_t);
  static const Function genuine = reinterpret_cast<Function>(dlsym(RTLD_NEXT, "pread64"));
  return Disturbed(descriptor, target, size, [&](void* to, size_t count) {
    return genuine(descriptor, to, count, position);
  });
}

ssize_t VectorRead(int descriptor, const iovec* parts, off64_t position) {
  return PositionalRead(descriptor, parts[0].iov_base, parts[0].iov_len, position);
}

}  // namespace

extern "C" {

ssize_t pread(int descriptor, void* target, size_t size, off_t position) {
  return PositionalRead(descriptor, target, size, position);
}
ssize_t pread64(int descriptor, void* target, size_t size, off64_t position) {
  return PositionalRead(descriptor, target, size, position);
}
// Callers here pass one part; the first of several would be a short read all the same.
ssize_t preadv(int descriptor, const iovec* parts, int, off_t position) {
  return VectorRead(descriptor, parts, position);
}
ssize_t preadv64(int descriptor, const iovec* parts, int, off64_t position) {
  return VectorRead(descriptor, parts, position);
}
ssize_t preadv2(int descriptor, const iovec* parts, int, off_t position, int) {
  return VectorRead(descriptor, parts, position);
}
ssize_t preadv64v2(int descriptor, const iovec* parts, int, off64_t position, int) {
  return VectorRead(descriptor, parts, position);
}

unsigned disturbed_reads() { return disturbed; }

}  // extern "C"
