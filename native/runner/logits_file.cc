#include "logits_file.h"

#include <filesystem>
#include <fstream>

#include "runner_error.h"

namespace molkv::runner {

namespace fs = std::filesystem;

void WriteLogits(Session& session, const std::vector<int64_t>& token_ids, const std::string& file) {
  const std::string temporary = file + ".partial";
  const auto fail = [&] {
    throw RunnerError(file + ": cannot be written", "check the path and the free space");
  };
  std::ofstream out(temporary, std::ios::binary);
  if (!out) fail();
  const auto vocabulary_size = static_cast<size_t>(session.model().vocab_size);
  try {
    session.EveryLogits(token_ids, [&](const float* logits, size_t rows) {
      out.write(reinterpret_cast<const char*>(logits),
                static_cast<std::streamsize>(rows * vocabulary_size * sizeof(float)));
    });
    out.close();
    if (!out) fail();
    fs::rename(temporary, file);
  } catch (const fs::filesystem_error&) {
    fs::remove(temporary);
    fail();
  } catch (...) {
    fs::remove(temporary);
    throw;
  }
}

}  // namespace molkv::runner
