#include "vocabulary.h"

#include "byte_alphabet.h"
#include "utf8.h"

namespace molkv {
namespace {

// Appends the bytes that the characters stand for; false, with nothing appended, if one stands for
// none.
bool AppendBytes(std::string_view content, std::string* bytes) {
  const size_t before = bytes->size();
  while (!content.empty()) {
    const Utf8Character character = ReadValidUtf8(content);
    const bool known =
        character.code_point < kByteAlphabetEnd && kByteAlphabet.bytes[character.code_point] >= 0;
    if (!known) {
      bytes->resize(before);
      return false;
    }
    bytes->push_back(static_cast<char>(kByteAlphabet.bytes[character.code_point]));
    content.remove_prefix(character.size);
  }
  return true;
}

}  // namespace

bool Vocabulary::Add(uint32_t id, std::string_view content, TokenOrigin origin) {
  if (Contains(id) || !entries_.emplace(content, Entry{id, origin}).second) {
    return false;
  }
  if (id >= spans_.size()) {
    spans_.resize(size_t{id} + 1);
  }
  Spell(id, content);
  return true;
}

void Vocabulary::Spell(uint32_t id, std::string_view content) {
  const size_t begin = bytes_.size();
  if (!AppendBytes(content, &bytes_)) {
    bytes_.append(content);
  }
  spans_[id].begin = static_cast<uint32_t>(begin);
  spans_[id].size = static_cast<uint32_t>(bytes_.size() - begin);
}

int64_t Vocabulary::Find(std::string_view content) const {
  const auto found = entries_.find(std::string(content));
  return found == entries_.end() ? -1 : static_cast<int64_t>(found->second.id);
}

int64_t Vocabulary::FindInModel(std::string_view content) const {
  const auto found = entries_.find(std::string(content));
  return found == entries_.end() || found->second.origin != TokenOrigin::kModel
             ? -1
             : static_cast<int64_t>(found->second.id);
}

}  // namespace molkv
