// Continuing a prompt, token by token.

#ifndef MOLKV_RUNNER_GENERATION_H_
#define MOLKV_RUNNER_GENERATION_H_

#include <cstddef>
#include <cstdint>
#include <functional>
#include <string_view>
#include <vector>

#include "molkv/molkv.h"
#include "session.h"

namespace molkv::runner {

struct GenerationOptions {
  size_t max_new_tokens = 128;
  molkv_sampling sampling = {};
  int64_t stop_id = -1;  // ends the text; -1: nothing does
};

// Called with every generated token: its id, and the whole characters that it completes, possibly
// none.
using TakeToken = std::function<void(int64_t token_id, std::string_view text)>;

// Starts a new sequence with a prompt and continues it, until `max_new_tokens` tokens are made, the
// stop id comes, which is not handed out, or the context is full. `tokenizer` may be null: then
// texts are empty. Throws RunnerError.
void Generate(Session& session, const molkv_tokenizer* tokenizer,
              const std::vector<int64_t>& prompt_ids, const GenerationOptions& options,
              const TakeToken& take);

}  // namespace molkv::runner

#endif  // MOLKV_RUNNER_GENERATION_H_
