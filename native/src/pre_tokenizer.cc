#include "pre_tokenizer.h"

#include <cstdint>

#include "unicode_tables.h"
#include "utf8.h"

namespace molkv {
namespace {

constexpr std::string_view kGpt2Expression =
    R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";
constexpr std::string_view kGpt4Expression =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3})"
    R"(| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr std::string_view kQwen2Expression =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N})"
    R"(| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";

// The classes that the expressions tell apart; each character is in one.
constexpr uint32_t kClasses = kLetter | kNumber | kSpace;
constexpr uint32_t kOther = 0;

// Walks over the characters of a text.
class Cursor {
 public:
  explicit Cursor(std::string_view text, size_t place = 0) : text_(text), place_(place) { Read(); }

  bool AtEnd() const { return size_ == 0; }
  size_t place() const { return place_; }
  size_t after() const { return place_ + size_; }
  bool Is(uint32_t character_class) const { return !AtEnd() && class_ == character_class; }
  bool IsLineBreak() const { return !AtEnd() && (text_[place_] == '\r' || text_[place_] == '\n'); }

  void Advance() {
    place_ += size_;
    Read();
  }

  // Advances over at most `most` characters of a class.
  void Skip(uint32_t character_class, size_t most = SIZE_MAX) {
    for (; most > 0 && Is(character_class); --most) {
      Advance();
    }
  }

 private:
  void Read() {
    if (place_ == text_.size()) {
      size_ = 0;
      return;
    }
    const Utf8Character character = ReadValidUtf8(text_.substr(place_));
    size_ = character.size;
    class_ = CharacterFlags(character.code_point) & kClasses;
  }

  std::string_view text_;
  size_t place_;
  size_t size_ = 0;
  uint32_t class_ = kOther;
};

// 's|'t|'re|'ve|'m|'ll|'d; 0 if the text begins with none of them.
size_t ContractionSize(std::string_view text, bool ignore_case) {
  // U+017F, the long s, is the only other character whose case folds to one of the letters.
  constexpr std::string_view kLongS = "\xC5\xBF";
  if (text[0] != '\'' || text.size() < 2) {
    return 0;
  }
  const auto letter = [&](size_t index) -> char {
    const char character = index < text.size() ? text[index] : '\0';
    return ignore_case && character >= 'A' && character <= 'Z'
               ? static_cast<char>(character - 'A' + 'a')
               : character;
  };
  switch (letter(1)) {
    case 's':
    case 't':
    case 'm':
    case 'd':
      return 2;
    case 'r':
    case 'v':
      return letter(2) == 'e' ? 3 : 0;
    case 'l':
      return letter(2) == 'l' ? 3 : 0;
    default:
      return ignore_case && text.substr(1, kLongS.size()) == kLongS ? 1 + kLongS.size() : 0;
  }
}

// \s+(?!\S)|\s+ at a space: all spaces at the end of the text, otherwise all but the last, which
// belongs to what follows it, but at least one.
size_t SpacesSize(std::string_view text) {
  Cursor cursor(text);
  size_t last = 0;
  while (cursor.Is(kSpace)) {
    last = cursor.place();
    cursor.Advance();
  }
  return cursor.AtEnd() || last == 0 ? cursor.place() : last;
}

size_t FirstGpt2PieceSize(std::string_view text) {
  const size_t contraction = ContractionSize(text, false);
  if (contraction > 0) {
    return contraction;
  }
  Cursor cursor(text, text[0] == ' ' ? 1 : 0);
  for (const uint32_t character_class : {uint32_t{kLetter}, uint32_t{kNumber}, kOther}) {
    if (cursor.Is(character_class)) {
      cursor.Skip(character_class);
      return cursor.place();
    }
  }
  return SpacesSize(text);
}

// \s*[\r\n]+ : up to the last line break of the spaces at the front; 0 if they have none.
size_t LineBreaksSize(std::string_view text) {
  size_t size = 0;
  for (Cursor cursor(text); cursor.Is(kSpace); cursor.Advance()) {
    if (cursor.IsLineBreak()) {
      size = cursor.after();
    }
  }
  return size;
}

size_t FirstGpt4PieceSize(std::string_view text, size_t most_digits) {
  const size_t contraction = ContractionSize(text, true);
  if (contraction > 0) {
    return contraction;
  }
  Cursor cursor(text);
  if (cursor.Is(kNumber)) {
    cursor.Skip(kNumber, most_digits);
    return cursor.place();
  }
  Cursor letters = cursor;
  if (!letters.Is(kLetter) && !letters.IsLineBreak()) {
    letters.Advance();
  }
  if (letters.Is(kLetter)) {
    letters.Skip(kLetter);
    return letters.place();
  }
  if (text[0] == ' ') {
    cursor.Advance();
  }
  if (cursor.Is(kOther)) {
    cursor.Skip(kOther);
    while (cursor.IsLineBreak()) {
      cursor.Advance();
    }
    return cursor.place();
  }
  const size_t line_breaks = LineBreaksSize(text);
  return line_breaks > 0 ? line_breaks : SpacesSize(text);
}

}  // namespace

bool FindSplitPattern(std::string_view expression, SplitPattern* pattern) {
  if (expression == kGpt2Expression) {
    *pattern = SplitPattern::kGpt2;
  } else if (expression == kGpt4Expression) {
    *pattern = SplitPattern::kGpt4;
  } else if (expression == kQwen2Expression) {
    *pattern = SplitPattern::kQwen2;
  } else {
    return false;
  }
  return true;
}

size_t FirstPieceSize(SplitPattern pattern, std::string_view text) {
  switch (pattern) {
    case SplitPattern::kGpt2:
      return FirstGpt2PieceSize(text);
    case SplitPattern::kGpt4:
      return FirstGpt4PieceSize(text, 3);
    case SplitPattern::kQwen2:
      return FirstGpt4PieceSize(text, 1);
    case SplitPattern::kNone:
      break;
  }
  return text.size();
}

}  // namespace molkv
