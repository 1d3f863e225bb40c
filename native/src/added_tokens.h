// Tokens that are found in a text as a whole, before anything else, such as "<|endoftext|>".

#ifndef MOLKV_SRC_ADDED_TOKENS_H_
#define MOLKV_SRC_ADDED_TOKENS_H_

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <unordered_map>
#include <unordered_set>
#include <vector>

namespace molkv {

struct AddedToken {
  uint32_t id = 0;
  std::string content;       // what is looked for: normalized if `normalized` is true
  bool single_word = false;  // only where no part of a word touches it
  bool lstrip = false;       // spaces before it become part of it
  bool rstrip = false;       // so do spaces after it
  bool normalized = false;   // looked for in normalized text, after all tokens that are not
  bool special = false;      // left out of decoded text on request
};

// A part of a text: a token, or text between tokens.
struct TextPart {
  std::string_view text;
  int64_t id;  // -1: text
};

class AddedTokens {
 public:
  // False if a token with the same content is there, which is looked for in the same text. The
  // content must not be empty.
  bool Add(const AddedToken& token);

  bool IsSpecial(uint64_t id) const { return special_ids_.count(id) > 0; }

  // Cut a valid text into parts, none of them empty text: first a text as it is, at the tokens that
  // are not normalized, then the normalized form of each text between them, at those that are.
  std::vector<TextPart> SplitPlain(std::string_view text) const { return plain_.Split(text); }
  std::vector<TextPart> SplitNormalized(std::string_view text) const {
    return normalized_.Split(text);
  }

 private:
  // Finds the longest token at a place of a text, byte by byte.
  class Matcher {
   public:
    bool Add(const AddedToken& token);
    std::vector<TextPart> Split(std::string_view text) const;

   private:
    // The longest token that the text begins with, or nullptr.
    const AddedToken* FindLongest(std::string_view text) const;

    std::vector<AddedToken> tokens_;
    bool first_bytes_[0x100] = {};
    // A tree of prefixes: a node and a byte lead to a node. 0 is the root.
    std::unordered_map<uint64_t, uint32_t> children_;
    std::unordered_map<uint32_t, size_t> ends_;  // node to token
    uint32_t nodes_ = 1;
  };

  Matcher plain_;
  Matcher normalized_;
  std::unordered_set<uint64_t> special_ids_;
};

}  // namespace molkv

#endif  // MOLKV_SRC_ADDED_TOKENS_H_
