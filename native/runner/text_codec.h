// Text to token ids and back, through libmolkv's tokenizer.

#ifndef MOLKV_RUNNER_TEXT_CODEC_H_
#define MOLKV_RUNNER_TEXT_CODEC_H_

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "molkv_handles.h"

namespace molkv::runner {

// Special tokens leave no text. Functions throw RunnerError, and so does TextStream.
std::vector<int64_t> Encode(const molkv_tokenizer& tokenizer, const std::string& text);
std::string Decode(const molkv_tokenizer& tokenizer, const std::vector<int64_t>& token_ids);

// The id that ends a text; -1 if the tokenizer has none.
int64_t EndOfText(const molkv_tokenizer& tokenizer);

// Text that comes token by token, in whole characters and without special tokens. The views are
// valid until the next call.
class TextStream {
 public:
  // The text of the prompt is not handed out, but a character that it leaves unfinished is, once it
  // is complete.
  TextStream(const molkv_tokenizer& tokenizer, const std::vector<int64_t>& prompt_ids);

  std::string_view Push(int64_t token_id);

  // What was held back, an unfinished character as U+FFFD.
  std::string_view Finish();

 private:
  MolkvHandle<molkv_text_stream> stream_;
};

}  // namespace molkv::runner

#endif  // MOLKV_RUNNER_TEXT_CODEC_H_
