#include "bundle.h"

#include <algorithm>
#include <filesystem>
#include <system_error>
#include <utility>

#include "blob_check.h"
#include "runner_error.h"
#include "sha256.h"

namespace molkv::runner {

namespace fs = std::filesystem;

Bundle::Bundle(std::string folder) : folder_(std::move(folder)), manifest_(ReadManifest(folder_)) {
  for (const FileEntry& entry : manifest_.files) CheckSize(entry);
  for (const FileEntry& entry : manifest_.files) {
    if (!IsExperts(entry)) CheckDigest(entry);
  }
}

void Bundle::VerifyExperts() const {
  for (const FileEntry& entry : manifest_.files) {
    if (IsExperts(entry)) CheckDigest(entry);
  }
}

MolkvHandle<molkv_blob> Bundle::OpenExperts() const {
  if (manifest_.experts.empty()) return nullptr;
  std::vector<std::string> files;
  for (const std::string& name : manifest_.experts) files.push_back(Path(name));
  std::vector<const char*> paths;
  for (const std::string& file : files) paths.push_back(file.c_str());
  const molkv_blob_options* defaults = nullptr;
  auto blob = MakeMolkv<molkv_blob>(molkv_blob_open, paths.data(), paths.size(), defaults);
  CheckBlob(*blob, files.front(), manifest_);
  return blob;
}

MolkvHandle<molkv_tokenizer> Bundle::OpenTokenizer() const {
  if (!manifest_.tokenizer) return nullptr;
  const std::string file = Path(manifest_.tokenizer->file);
  auto tokenizer = MakeMolkv<molkv_tokenizer>(molkv_tokenizer_open, file.c_str());
  const auto size = static_cast<int64_t>(molkv_tokenizer_vocabulary_size(tokenizer.get()));
  const auto count = static_cast<int64_t>(molkv_tokenizer_token_count(tokenizer.get()));
  constexpr char kFix[] = "use the tokenizer.json that the model was trained with";
  // A smaller vocabulary is fine: models often pad theirs.
  if (size > manifest_.model.vocab_size) {
    throw RunnerError(file + ": has a vocabulary of " + std::to_string(size) +
                          " ids, and the model one of " +
                          std::to_string(manifest_.model.vocab_size),
                      kFix);
  }
  if (count != manifest_.tokenizer->vocabulary_size) {
    throw RunnerError(file + ": has " + std::to_string(count) + " tokens, the manifest says " +
                          std::to_string(manifest_.tokenizer->vocabulary_size),
                      kFix);
  }
  return tokenizer;
}

Golden Bundle::LoadGolden() const {
  return ReadGolden(Path(manifest_.golden), manifest_.model.vocab_size);
}

const BackendEntry& Bundle::Backend(const std::string& backend) const {
  const auto found = manifest_.backends.find(backend);
  if (found != manifest_.backends.end()) return found->second;
  throw RunnerError(folder_ + ": has no " + backend + " graph", "export with --backend " + backend);
}

std::string Bundle::GraphFile(const std::string& backend) const {
  return Path(Backend(backend).graph);
}

void Bundle::CheckSize(const FileEntry& entry) const {
  const std::string file = Path(entry.name);
  std::error_code failure;
  if (!fs::is_regular_file(file, failure)) {
    throw RunnerError(file + ": file is missing", "copy the bundle again");
  }
  const auto size = fs::file_size(file, failure);
  if (failure || entry.bytes < 0 || size != static_cast<uint64_t>(entry.bytes)) {
    throw RunnerError(file + ": has " + std::to_string(size) + " bytes, the manifest says " +
                          std::to_string(entry.bytes),
                      "the copy is incomplete; copy the bundle again");
  }
}

void Bundle::CheckDigest(const FileEntry& entry) const {
  const std::string file = Path(entry.name);
  if (const std::string actual = FileSha256(file); actual != entry.sha256) {
    throw RunnerError(file + ": sha256 is " + actual + ", the manifest says " + entry.sha256,
                      "the file was changed or damaged; copy the bundle again");
  }
}

bool Bundle::IsExperts(const FileEntry& entry) const {
  const auto& experts = manifest_.experts;
  return std::find(experts.begin(), experts.end(), entry.name) != experts.end();
}

}  // namespace molkv::runner
