// Brings text into the form that a tokenizer was trained on.
//
// The form is NFC, Unicode's canonical composition: what can be written as one character or as
// several, such as a letter and its accent, becomes one.

#ifndef MOLKV_SRC_NORMALIZER_H_
#define MOLKV_SRC_NORMALIZER_H_

#include <string>
#include <string_view>

namespace molkv {

enum class Normalizer {
  kNone,
  kNfc,
};

// The normalized form of a valid text: the text itself where it holds nothing that might change,
// otherwise what is written to `buffer`.
std::string_view Normalize(Normalizer normalizer, std::string_view text, std::string* buffer);

}  // namespace molkv

#endif  // MOLKV_SRC_NORMALIZER_H_
