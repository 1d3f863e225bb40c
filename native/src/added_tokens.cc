#include "added_tokens.h"

#include "unicode_tables.h"
#include "utf8.h"

namespace molkv {
namespace {

uint32_t FlagsOfFirst(std::string_view text) {
  return text.empty() ? 0 : CharacterFlags(ReadValidUtf8(text).code_point);
}

// Where the last character of a text that is not empty begins.
size_t PlaceOfLast(std::string_view text) {
  size_t place = text.size() - 1;
  while ((static_cast<uint8_t>(text[place]) & 0xC0) == 0x80) {
    --place;
  }
  return place;
}

uint32_t FlagsOfLast(std::string_view text) {
  return text.empty() ? 0 : FlagsOfFirst(text.substr(PlaceOfLast(text)));
}

// Where the spaces begin that a text ends in.
size_t PlaceOfLastSpaces(std::string_view text) {
  while ((FlagsOfLast(text) & kSpace) != 0) {
    text = text.substr(0, PlaceOfLast(text));
  }
  return text.size();
}

// The size of the spaces that a text begins with.
size_t SizeOfFirstSpaces(std::string_view text) {
  size_t size = 0;
  while ((FlagsOfFirst(text.substr(size)) & kSpace) != 0) {
    size += ReadValidUtf8(text.substr(size)).size;
  }
  return size;
}

uint64_t ChildKey(uint32_t node, char byte) {
  return uint64_t{node} << 8 | static_cast<uint8_t>(byte);
}

}  // namespace

bool AddedTokens::Matcher::Add(const AddedToken& token) {
  first_bytes_[static_cast<uint8_t>(token.content[0])] = true;
  uint32_t node = 0;
  for (const char byte : token.content) {
    const auto [child, is_new] = children_.emplace(ChildKey(node, byte), nodes_);
    nodes_ += is_new;
    node = child->second;
  }
  const bool is_new = ends_.emplace(node, tokens_.size()).second;
  if (is_new) {
    tokens_.push_back(token);
  }
  return is_new;
}

const AddedToken* AddedTokens::Matcher::FindLongest(std::string_view text) const {
  const AddedToken* longest = nullptr;
  uint32_t node = 0;
  for (const char byte : text) {
    const auto child = children_.find(ChildKey(node, byte));
    if (child == children_.end()) {
      break;
    }
    node = child->second;
    const auto end = ends_.find(node);
    if (end != ends_.end()) {
      longest = &tokens_[end->second];
    }
  }
  return longest;
}

// Follows the tokenizers library step by step, in what it does with spaces that two tokens claim
// too.
std::vector<TextPart> AddedTokens::Matcher::Split(std::string_view text) const {
  std::vector<TextPart> parts;
  size_t done = 0;
  size_t place = 0;
  while (!tokens_.empty() && place < text.size()) {
    const AddedToken* token =
        first_bytes_[static_cast<uint8_t>(text[place])] ? FindLongest(text.substr(place)) : nullptr;
    if (token == nullptr) {
      ++place;
      continue;
    }
    size_t start = place;
    size_t stop = place + token->content.size();
    place = stop;
    if (token->single_word && ((FlagsOfLast(text.substr(0, start)) & kWord) != 0 ||
                               (FlagsOfFirst(text.substr(stop)) & kWord) != 0)) {
      continue;
    }
    if (token->lstrip) {
      // Spaces that the token before has taken are gone.
      start = start > done ? done + PlaceOfLastSpaces(text.substr(done, start - done)) : done;
    }
    if (token->rstrip) {
      stop += SizeOfFirstSpaces(text.substr(stop));
    }
    if (start >= stop) {
      continue;  // a token of spaces that the token before has taken
    }
    if (done < start) {
      parts.push_back({text.substr(done, start - done), -1});
    }
    parts.push_back({{}, token->id});
    done = stop;
  }
  if (done < text.size()) {
    parts.push_back({text.substr(done), -1});
  }
  return parts;
}

bool AddedTokens::Add(const AddedToken& token) {
  if (token.special) {
    special_ids_.insert(token.id);
  }
  return (token.normalized ? normalized_ : plain_).Add(token);
}

}  // namespace molkv
