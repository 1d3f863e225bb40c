// Whether an expert blob belongs to a bundle's dense graph.

#ifndef MOLKV_RUNNER_BLOB_CHECK_H_
#define MOLKV_RUNNER_BLOB_CHECK_H_

#include <string>

#include "manifest.h"
#include "molkv/molkv.h"

namespace molkv::runner {

// Compares identity, vocabulary and row geometry. Throws RunnerError, which names `file`.
void CheckBlob(const molkv_blob& blob, const std::string& file, const Manifest& manifest);

}  // namespace molkv::runner

#endif  // MOLKV_RUNNER_BLOB_CHECK_H_
