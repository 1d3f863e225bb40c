// Text that comes token by token, never half a UTF-8 character.

#ifndef MOLKV_SRC_TEXT_STREAM_H_
#define MOLKV_SRC_TEXT_STREAM_H_

#include <cstdint>
#include <string>

#include "tokenizer.h"

namespace molkv {

// All pushes and the finish together give what Tokenizer::Decode gives of all ids. Text is handed
// out as soon as no later token can change it: at most the first three bytes of one character are
// held back.
class TextStream {
 public:
  // The tokenizer must outlive the stream.
  TextStream(const Tokenizer& tokenizer, bool skip_special_tokens)
      : tokenizer_(tokenizer), skip_special_tokens_(skip_special_tokens) {}

  // What this token settles. Valid until the next call. Throws Error as Tokenizer::Bytes does.
  const std::string& Push(int64_t id);

  // What was held back, as U+FFFD; the stream starts afresh.
  const std::string& Finish();

 private:
  const Tokenizer& tokenizer_;
  bool skip_special_tokens_;
  std::string held_back_;
  std::string settled_;
};

}  // namespace molkv

#endif  // MOLKV_SRC_TEXT_STREAM_H_
