// Tokens by content and by id.

#ifndef MOLKV_SRC_VOCABULARY_H_
#define MOLKV_SRC_VOCABULARY_H_

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

namespace molkv {

// Far above any real vocabulary, and small enough for a table by id.
constexpr uint32_t kLargestTokenId = (1u << 22) - 1;

enum class TokenOrigin {
  kModel,  // pieces of text can become it
  kAdded,  // it is only found as a whole
};

class Vocabulary {
 public:
  // Adds a token; false if its id or its content is there already. The id must be at most
  // kLargestTokenId.
  bool Add(uint32_t id, std::string_view content, TokenOrigin origin);

  // Has a token that is there decode to another content; it is still found by its own.
  void Spell(uint32_t id, std::string_view content);

  // The id of a content, or -1.
  int64_t Find(std::string_view content) const;

  // The same among the model's tokens.
  int64_t FindInModel(std::string_view content) const;

  bool Contains(uint64_t id) const { return id < spans_.size() && spans_[id].begin != kAbsent; }

  // The bytes that a token decodes to; none for an id without a token. A content with a character
  // outside the byte alphabet, as an added token may have, is plain text.
  std::string_view Bytes(uint64_t id) const {
    return Contains(id) ? std::string_view(bytes_).substr(spans_[id].begin, spans_[id].size)
                        : std::string_view();
  }

  // How many tokens there are; ids may have gaps.
  size_t count() const { return entries_.size(); }

  // One more than the largest id.
  size_t end() const { return spans_.size(); }

 private:
  static constexpr uint32_t kAbsent = UINT32_MAX;

  struct Span {
    uint32_t begin = kAbsent;
    uint32_t size = 0;
  };

  struct Entry {
    uint32_t id;
    TokenOrigin origin;
  };

  std::unordered_map<std::string, Entry> entries_;
  std::vector<Span> spans_;
  std::string bytes_;
};

}  // namespace molkv

#endif  // MOLKV_SRC_VOCABULARY_H_
