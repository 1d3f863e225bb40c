// Reads tokenizer.json, the file of the `tokenizers` library.

#ifndef MOLKV_SRC_TOKENIZER_FILE_H_
#define MOLKV_SRC_TOKENIZER_FILE_H_

#include <string_view>

#include "added_tokens.h"
#include "byte_pair_encoder.h"
#include "normalizer.h"
#include "pre_tokenizer.h"
#include "vocabulary.h"

namespace molkv {

// What a byte-level BPE tokenizer consists of.
struct TokenizerParts {
  Vocabulary vocabulary;
  MergeTable merges;
  bool whole_pieces;
  PreTokenizer pre_tokenizer;
  AddedTokens added_tokens;
  Normalizer normalizer = Normalizer::kNone;
};

// Throws Error: MOLKV_FORMAT where the file is damaged or contradicts itself, MOLKV_UNSUPPORTED
// where it asks for what this library does not do exactly as the `tokenizers` library does. Either
// names the field and its value.
TokenizerParts ReadTokenizerFile(std::string_view json);

}  // namespace molkv

#endif  // MOLKV_SRC_TOKENIZER_FILE_H_
