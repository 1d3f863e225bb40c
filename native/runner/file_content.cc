#include "file_content.h"

#include <cerrno>
#include <cstdio>
#include <memory>
#include <system_error>
#include <vector>

#include "runner_error.h"

namespace molkv::runner {
namespace {

constexpr size_t kPart = size_t{1} << 18;

struct CloseFile {
  void operator()(std::FILE* file) const { std::fclose(file); }
};

[[noreturn]] void Fail(const std::string& file, int code) {
  if (code == ENOENT) throw RunnerError(file + ": file is missing", "check the path");
  throw RunnerError(file + ": cannot be read: " + std::generic_category().message(code),
                    "check the path and its permissions");
}

}  // namespace

void ReadFile(const std::string& file, const std::function<void(const char*, size_t)>& take) {
  const std::unique_ptr<std::FILE, CloseFile> open(std::fopen(file.c_str(), "rb"));
  if (open == nullptr) Fail(file, errno);
  std::vector<char> part(kPart);
  while (const size_t size = std::fread(part.data(), 1, part.size(), open.get())) {
    take(part.data(), size);
  }
  if (std::ferror(open.get()) != 0) Fail(file, errno);
}

std::string FileContent(const std::string& file, size_t limit) {
  std::string content;
  ReadFile(file, [&](const char* data, size_t size) {
    if (size > limit - content.size()) {
      throw RunnerError(file + ": has more than " + std::to_string(limit) + " bytes",
                        "this is not the file that was meant; check the path");
    }
    content.append(data, size);
  });
  return content;
}

}  // namespace molkv::runner
