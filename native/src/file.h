// Open files and positional reads.

#ifndef MOLKV_SRC_FILE_H_
#define MOLKV_SRC_FILE_H_

#include <sys/types.h>

#include <cstddef>
#include <cstdint>
#include <string>

namespace molkv {

// Owns a file descriptor.
class File {
 public:
  // Opens for reading. Does not wait for a pipe's writer.
  static File Open(const std::string& path);

  // A second descriptor of an open file. `name` is for messages.
  static File Duplicate(int descriptor, const std::string& name);

  // The file anew, so that its flags can change without changing the caller's descriptor.
  static File Reopen(int descriptor, const std::string& name);

  File(File&& other) noexcept;
  File& operator=(File&& other) noexcept;
  File(const File&) = delete;
  File& operator=(const File&) = delete;
  ~File();

  int descriptor() const { return descriptor_; }

  // Makes reads bypass the page cache; throws MOLKV_UNSUPPORTED where the file system cannot.
  void UseDirectIo(const std::string& name);

  // Tells the system not to read ahead, as it does by guess and in vain. Shared with duplicates.
  void ExpectRandomReads() const;

 private:
  explicit File(int descriptor) : descriptor_(descriptor) {}

  int descriptor_;
};

// What a read did.
struct ReadResult {
  uint64_t filled = 0;  // bytes; fewer than asked for at the end of the file or on an error
  uint64_t calls = 0;   // positional reads issued
  int error = 0;        // errno, or 0
};

// pread or, in tests, something that acts like it.
using PositionalRead = ssize_t (*)(int descriptor, void* target, size_t size, off_t position);

// Reads until `size` bytes are there, the file ends or the system refuses. Short and interrupted
// reads are continued.
ReadResult ReadAt(int descriptor, uint8_t* target, uint64_t size, uint64_t position);
ReadResult ReadAt(int descriptor, uint8_t* target, uint64_t size, uint64_t position,
                  PositionalRead read);

// The system's words for an errno.
std::string SystemMessage(int error);

}  // namespace molkv

#endif  // MOLKV_SRC_FILE_H_
