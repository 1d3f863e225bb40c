// Cuts text into the pieces inside which tokens are formed.
//
// Tokenizers describe the cut with a regular expression. The three that byte-level models use are
// matched by hand here, exactly as a backtracking engine would: alternatives in order, each as long
// as it can be.

#ifndef MOLKV_SRC_PRE_TOKENIZER_H_
#define MOLKV_SRC_PRE_TOKENIZER_H_

#include <cstddef>
#include <string_view>

namespace molkv {

enum class SplitPattern {
  kNone,   // no cut
  kGpt2,   // contractions, then runs of letters, of numbers, of others, each with a space before
  kGpt4,   // GPT-4, Llama 3: numbers in threes, line breaks kept together
  kQwen2,  // the same with single digits
};

// The pattern of a regular expression; false if it is none of these.
bool FindSplitPattern(std::string_view expression, SplitPattern* pattern);

// The size in bytes of a text's first piece. The text must be valid UTF-8 and not empty.
size_t FirstPieceSize(SplitPattern pattern, std::string_view text);

// What a tokenizer.json says about the cut.
struct PreTokenizer {
  SplitPattern pattern = SplitPattern::kGpt2;
  bool space_before_text = false;    // a text begins with a space, added if it has none
  bool space_before_pieces = false;  // so does each piece
};

}  // namespace molkv

#endif  // MOLKV_SRC_PRE_TOKENIZER_H_
