#include "text_stream.h"

#include <string_view>

#include "utf8.h"

namespace molkv {
namespace {

// Whether a text is the first two bytes of an encoded surrogate. They are invalid whatever follows,
// but Python's decoder waits for the third, and both are to hand out the same parts.
bool IsBeginningOfSurrogate(std::string_view text) {
  return text.size() == 2 && text[0] == '\xED' && (static_cast<uint8_t>(text[1]) & 0xE0) == 0xA0;
}

}  // namespace

const std::string& TextStream::Push(int64_t id) {
  held_back_.append(tokenizer_.Bytes(id, skip_special_tokens_));
  settled_.clear();
  std::string_view rest = held_back_;
  while (!rest.empty()) {
    const size_t valid = ValidUtf8Prefix(rest);
    settled_.append(rest.substr(0, valid));
    rest.remove_prefix(valid);
    if (rest.empty()) {
      break;
    }
    const Utf8Character character = ReadUtf8(rest);
    if (character.state == Utf8State::kUnfinished || IsBeginningOfSurrogate(rest)) {
      break;
    }
    settled_.append(kReplacementCharacter);
    rest.remove_prefix(character.size);
  }
  held_back_.erase(0, held_back_.size() - rest.size());
  return settled_;
}

const std::string& TextStream::Finish() {
  settled_.clear();
  AppendReplacingInvalid(held_back_, &settled_);
  held_back_.clear();
  return settled_;
}

}  // namespace molkv
