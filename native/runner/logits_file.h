// A prompt's logits as a raw file, to be compared with another runtime's.

#ifndef MOLKV_RUNNER_LOGITS_FILE_H_
#define MOLKV_RUNNER_LOGITS_FILE_H_

#include <cstdint>
#include <string>
#include <vector>

#include "session.h"

namespace molkv::runner {

// Runs a prompt and writes the logits of all its positions: float32 [tokens, V] in the processor's
// byte order. The file appears when it is complete. Throws RunnerError.
void WriteLogits(Session& session, const std::vector<int64_t>& token_ids, const std::string& file);

}  // namespace molkv::runner

#endif  // MOLKV_RUNNER_LOGITS_FILE_H_
