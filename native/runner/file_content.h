// Reading a whole file.

#ifndef MOLKV_RUNNER_FILE_CONTENT_H_
#define MOLKV_RUNNER_FILE_CONTENT_H_

#include <cstddef>
#include <functional>
#include <string>

namespace molkv::runner {

// Hands a file's content to `take`, part by part. Throws RunnerError if it cannot be read.
void ReadFile(const std::string& file, const std::function<void(const char*, size_t)>& take);

// A file's content, which may have at most `limit` bytes.
std::string FileContent(const std::string& file, size_t limit);

}  // namespace molkv::runner

#endif  // MOLKV_RUNNER_FILE_CONTENT_H_
