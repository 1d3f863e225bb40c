#include "file.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <system_error>
#include <utility>

#include "error.h"

namespace molkv {
namespace {

static_assert(sizeof(off_t) == 8, "files above 2 GiB need 64-bit positions");

// O_NONBLOCK has no effect on regular files, and keeps open() from waiting for a pipe's writer
// before the file type can be refused.
constexpr int kOpenFlags = O_RDONLY | O_CLOEXEC | O_NONBLOCK;

int OpenDescriptor(const char* path, int flags) {
  int descriptor;
  do {
    descriptor = ::open(path, flags);
  } while (descriptor < 0 && errno == EINTR);
  return descriptor;
}

Error NoDirectIo(const std::string& name, const std::string& reason) {
  return Error(MOLKV_UNSUPPORTED,
               name + ": direct I/O is not possible: " + reason + " (open it without direct_io)");
}

}  // namespace

File File::Open(const std::string& path) {
  const int descriptor = OpenDescriptor(path.c_str(), kOpenFlags);
  if (descriptor < 0) {
    throw Error(MOLKV_IO, path + ": the file cannot be opened: " + SystemMessage(errno) +
                              " (check the path and its permissions)");
  }
  return File(descriptor);
}

File File::Duplicate(int descriptor, const std::string& name) {
  const int copy = ::fcntl(descriptor, F_DUPFD_CLOEXEC, 0);
  if (copy < 0) {
    throw Error(MOLKV_IO, name + ": the descriptor cannot be used: " + SystemMessage(errno) +
                              " (pass an open file)");
  }
  return File(copy);
}

File File::Reopen(int descriptor, const std::string& name) {
  const std::string path = "/proc/self/fd/" + std::to_string(descriptor);
  const int copy = OpenDescriptor(path.c_str(), kOpenFlags);
  if (copy < 0) {
    throw NoDirectIo(name, "the file cannot be opened anew: " + SystemMessage(errno));
  }
  return File(copy);
}

File::File(File&& other) noexcept : descriptor_(std::exchange(other.descriptor_, -1)) {}

File& File::operator=(File&& other) noexcept {
  std::swap(descriptor_, other.descriptor_);
  return *this;
}

File::~File() {
  if (descriptor_ >= 0) {
    ::close(descriptor_);
  }
}

void File::UseDirectIo(const std::string& name) {
#if defined(O_DIRECT)
  const int flags = ::fcntl(descriptor_, F_GETFL);
  if (flags < 0 || ::fcntl(descriptor_, F_SETFL, flags | O_DIRECT) < 0) {
    throw NoDirectIo(name, "the file system refuses it: " + SystemMessage(errno));
  }
#elif defined(F_NOCACHE)
  if (::fcntl(descriptor_, F_NOCACHE, 1) < 0) {
    throw NoDirectIo(name, "the file system refuses it: " + SystemMessage(errno));
  }
#else
  throw NoDirectIo(name, "this operating system has none");
#endif
}

void File::ExpectRandomReads() const {
  // Only a hint: whether the system takes it changes no result.
#if defined(POSIX_FADV_RANDOM)
  ::posix_fadvise(descriptor_, 0, 0, POSIX_FADV_RANDOM);
#elif defined(F_RDAHEAD)
  ::fcntl(descriptor_, F_RDAHEAD, 0);
#endif
}

ReadResult ReadAt(int descriptor, uint8_t* target, uint64_t size, uint64_t position) {
  return ReadAt(descriptor, target, size, position, &::pread);
}

ReadResult ReadAt(int descriptor, uint8_t* target, uint64_t size, uint64_t position,
                  PositionalRead read) {
  ReadResult result;
  while (result.filled < size) {
    const ssize_t count = read(descriptor, target + result.filled, size - result.filled,
                               static_cast<off_t>(position + result.filled));
    ++result.calls;
    if (count > 0) {
      result.filled += static_cast<uint64_t>(count);
    } else if (count == 0) {
      break;
    } else if (errno != EINTR) {
      result.error = errno;
      break;
    }
  }
  return result;
}

std::string SystemMessage(int error) { return std::generic_category().message(error); }

}  // namespace molkv
