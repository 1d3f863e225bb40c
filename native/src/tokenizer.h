// A byte-level BPE tokenizer: text to token ids and back, as the `tokenizers` library does it.

#ifndef MOLKV_SRC_TOKENIZER_H_
#define MOLKV_SRC_TOKENIZER_H_

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "molkv/molkv.h"
#include "tokenizer_file.h"

namespace molkv {

// Nothing in it changes after its construction, so any thread may use it.
class Tokenizer {
 public:
  explicit Tokenizer(TokenizerParts parts);

  Tokenizer(const Tokenizer&) = delete;
  Tokenizer& operator=(const Tokenizer&) = delete;

  const Vocabulary& vocabulary() const { return vocabulary_; }

  // Each maximal invalid part of the text is read as U+FFFD.
  std::vector<int64_t> Encode(std::string_view text) const;

  // The bytes of one token, which may be part of a character; none where an id has no token, as in
  // a padded vocabulary, and where the token is skipped. Throws Error if the id is not from 0 to
  // 2^32 - 1.
  std::string_view Bytes(int64_t id, bool skip_special_tokens) const;

  // Each maximal invalid part of the tokens' bytes becomes U+FFFD.
  std::string Decode(const int64_t* ids, size_t count, bool skip_special_tokens) const;

 private:
  // Text between added tokens that are not normalized.
  void EncodePlain(std::string_view text, BytePairEncoder::Scratch* scratch,
                   std::vector<int64_t>* ids) const;
  // Normalized text between added tokens.
  void EncodePart(std::string_view text, BytePairEncoder::Scratch* scratch,
                  std::vector<int64_t>* ids) const;

  Vocabulary vocabulary_;
  BytePairEncoder encoder_;
  Normalizer normalizer_;
  PreTokenizer pre_tokenizer_;
  AddedTokens added_tokens_;
};

}  // namespace molkv

struct molkv_tokenizer {
  explicit molkv_tokenizer(molkv::TokenizerParts parts) : tokenizer(std::move(parts)) {}

  molkv::Tokenizer tokenizer;
};

#endif  // MOLKV_SRC_TOKENIZER_H_
