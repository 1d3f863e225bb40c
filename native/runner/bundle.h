// A bundle folder: opened once, checked, and then trusted (docs/graph.md, "The bundle").

#ifndef MOLKV_RUNNER_BUNDLE_H_
#define MOLKV_RUNNER_BUNDLE_H_

#include <string>
#include <vector>

#include "golden.h"
#include "manifest.h"
#include "molkv_handles.h"

namespace molkv::runner {

// All functions throw RunnerError.
class Bundle {
 public:
  // Reads the manifest, and checks every file's size and the sha256 of every file but the expert
  // blob, whose rows carry checksums of their own.
  explicit Bundle(std::string folder);

  const std::string& folder() const { return folder_; }
  const Manifest& manifest() const { return manifest_; }

  // Compares the blob's sha256 too, which takes as long as reading all of it.
  void VerifyExperts() const;

  // The expert blob, checked to belong to the dense graph; null where the model has no experts.
  MolkvHandle<molkv_blob> OpenExperts() const;

  // The tokenizer; null without one: then ids go in and ids come out.
  MolkvHandle<molkv_tokenizer> OpenTokenizer() const;

  Golden LoadGolden() const;

  // What the manifest says about a backend's dense graph, and the graph's path.
  const BackendEntry& Backend(const std::string& backend) const;
  std::string GraphFile(const std::string& backend) const;

 private:
  std::string Path(const std::string& name) const { return folder_ + "/" + name; }
  void CheckSize(const FileEntry& entry) const;
  void CheckDigest(const FileEntry& entry) const;
  bool IsExperts(const FileEntry& entry) const;

  std::string folder_;
  Manifest manifest_;
};

}  // namespace molkv::runner

#endif  // MOLKV_RUNNER_BUNDLE_H_
