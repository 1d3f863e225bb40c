#include "text_codec.h"

namespace molkv::runner {
namespace {

constexpr int kSkipSpecialTokens = 1;

}  // namespace

std::vector<int64_t> Encode(const molkv_tokenizer& tokenizer, const std::string& text) {
  size_t count = 0;
  int64_t* only_count = nullptr;
  CallMolkv(molkv_tokenizer_encode, &tokenizer, text.data(), text.size(), only_count, &count);
  std::vector<int64_t> token_ids(count);
  if (count == 0) return token_ids;
  CallMolkv(molkv_tokenizer_encode, &tokenizer, text.data(), text.size(), token_ids.data(), &count);
  return token_ids;
}

std::string Decode(const molkv_tokenizer& tokenizer, const std::vector<int64_t>& token_ids) {
  size_t size = 0;
  char* only_size = nullptr;
  CallMolkv(molkv_tokenizer_decode, &tokenizer, token_ids.data(), token_ids.size(),
            kSkipSpecialTokens, only_size, &size);
  std::string text(size, '\0');
  if (size == 0) return text;
  CallMolkv(molkv_tokenizer_decode, &tokenizer, token_ids.data(), token_ids.size(),
            kSkipSpecialTokens, text.data(), &size);
  return text;
}

int64_t EndOfText(const molkv_tokenizer& tokenizer) {
  constexpr std::string_view kEndOfText = "<|endoftext|>";
  return molkv_tokenizer_find(&tokenizer, kEndOfText.data(), kEndOfText.size());
}

TextStream::TextStream(const molkv_tokenizer& tokenizer, const std::vector<int64_t>& prompt_ids)
    : stream_(
          MakeMolkv<molkv_text_stream>(molkv_text_stream_create, &tokenizer, kSkipSpecialTokens)) {
  for (const int64_t token_id : prompt_ids) Push(token_id);
}

std::string_view TextStream::Push(int64_t token_id) {
  const char* text = nullptr;
  size_t size = 0;
  CallMolkv(molkv_text_stream_push, stream_.get(), token_id, &text, &size);
  return {text, size};
}

std::string_view TextStream::Finish() {
  const char* text = nullptr;
  size_t size = 0;
  CallMolkv(molkv_text_stream_finish, stream_.get(), &text, &size);
  return {text, size};
}

}  // namespace molkv::runner
