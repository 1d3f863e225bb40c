#include "utf8.h"

#include <cstring>

namespace molkv {

Utf8Character ReadUtf8(std::string_view text) {
  const auto byte = [&](size_t index) { return static_cast<uint8_t>(text[index]); };
  const uint8_t first = byte(0);
  if (first < 0x80) {
    return {Utf8State::kValid, first, 1};
  }
  if (first < 0xC2 || first > 0xF4) {
    return {Utf8State::kInvalid, 0, 1};
  }
  const size_t size = first < 0xE0 ? 2 : first < 0xF0 ? 3 : 4;
  uint32_t code_point = first & (0x7F >> size);
  for (size_t index = 1; index < size; ++index) {
    if (index == text.size()) {
      return {Utf8State::kUnfinished, 0, index};
    }
    uint8_t least = 0x80;
    uint8_t most = 0xBF;
    if (index == 1) {
      // Overlong forms, surrogates and what lies above U+10FFFF show in the second byte.
      if (first == 0xE0) least = 0xA0;
      if (first == 0xED) most = 0x9F;
      if (first == 0xF0) least = 0x90;
      if (first == 0xF4) most = 0x8F;
    }
    if (byte(index) < least || byte(index) > most) {
      return {Utf8State::kInvalid, 0, index};
    }
    code_point = code_point << 6 | (byte(index) & 0x3F);
  }
  return {Utf8State::kValid, code_point, size};
}

size_t ValidUtf8Prefix(std::string_view text) {
  size_t place = 0;
  while (place < text.size()) {
    uint64_t eight;
    if (text.size() - place >= sizeof(eight)) {
      std::memcpy(&eight, text.data() + place, sizeof(eight));
      if ((eight & 0x8080808080808080u) == 0) {
        place += sizeof(eight);
        continue;
      }
    }
    const Utf8Character character = ReadUtf8(text.substr(place));
    if (character.state != Utf8State::kValid) {
      break;
    }
    place += character.size;
  }
  return place;
}

void AppendUtf8(uint32_t code_point, std::string* text) {
  const auto append = [&](uint32_t byte) { text->push_back(static_cast<char>(byte)); };
  if (code_point < 0x80) {
    append(code_point);
  } else if (code_point < 0x800) {
    append(0xC0 | code_point >> 6);
    append(0x80 | (code_point & 0x3F));
  } else if (code_point < 0x10000) {
    append(0xE0 | code_point >> 12);
    append(0x80 | (code_point >> 6 & 0x3F));
    append(0x80 | (code_point & 0x3F));
  } else {
    append(0xF0 | code_point >> 18);
    append(0x80 | (code_point >> 12 & 0x3F));
    append(0x80 | (code_point >> 6 & 0x3F));
    append(0x80 | (code_point & 0x3F));
  }
}

void AppendReplacingInvalid(std::string_view text, std::string* result) {
  while (!text.empty()) {
    const size_t valid = ValidUtf8Prefix(text);
    result->append(text.substr(0, valid));
    text.remove_prefix(valid);
    if (!text.empty()) {
      result->append(kReplacementCharacter);
      text.remove_prefix(ReadUtf8(text).size);
    }
  }
}

}  // namespace molkv
