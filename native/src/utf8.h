// Reads and writes UTF-8, invalid input included.

#ifndef MOLKV_SRC_UTF8_H_
#define MOLKV_SRC_UTF8_H_

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace molkv {

constexpr std::string_view kReplacementCharacter = "\xEF\xBF\xBD";  // U+FFFD

enum class Utf8State {
  kValid,
  kInvalid,    // no byte that may follow makes these bytes a character
  kUnfinished  // the text ends inside a character
};

// What the front of a text holds.
struct Utf8Character {
  Utf8State state;
  uint32_t code_point;  // of a valid character
  size_t size;          // bytes; of invalid or unfinished ones, the longest possible beginning
};

// Looks at the front of a text that is not empty. The size of an invalid part is that of Unicode's
// "maximal subpart", the part that Python, Rust and browsers replace with one U+FFFD.
Utf8Character ReadUtf8(std::string_view text);

// The front of a text that is known to be valid and not empty.
inline Utf8Character ReadValidUtf8(std::string_view text) {
  const auto byte = [&](size_t index) { return static_cast<uint8_t>(text[index]); };
  const uint32_t first = byte(0);
  if (first < 0x80) {
    return {Utf8State::kValid, first, 1};
  }
  if (first < 0xE0) {
    return {Utf8State::kValid, (first & 0x1F) << 6 | (byte(1) & 0x3Fu), 2};
  }
  if (first < 0xF0) {
    return {Utf8State::kValid, (first & 0x0F) << 12 | (byte(1) & 0x3Fu) << 6 | (byte(2) & 0x3Fu),
            3};
  }
  return {
      Utf8State::kValid,
      (first & 0x07) << 18 | (byte(1) & 0x3Fu) << 12 | (byte(2) & 0x3Fu) << 6 | (byte(3) & 0x3Fu),
      4};
}

// Bytes before the first that belong to no valid character; the text's size if it is valid.
size_t ValidUtf8Prefix(std::string_view text);

// The longest beginning of a valid text that has at most `most` bytes and cuts no character.
inline std::string_view Beginning(std::string_view text, size_t most) {
  return text.substr(0, ValidUtf8Prefix(text.substr(0, most)));
}

void AppendUtf8(uint32_t code_point, std::string* text);

// Appends a text to `result`, each maximal invalid part as U+FFFD.
void AppendReplacingInvalid(std::string_view text, std::string* result);

}  // namespace molkv

#endif  // MOLKV_SRC_UTF8_H_
