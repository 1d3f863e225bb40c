// The character classes that tokenizers split text by.
//
// The tables are generated from the `tokenizers` library, whose Unicode version decides where a
// text is cut: see native/tools/make_unicode_tables.py.

#ifndef MOLKV_SRC_UNICODE_TABLES_H_
#define MOLKV_SRC_UNICODE_TABLES_H_

#include <algorithm>
#include <cstddef>
#include <cstdint>

namespace molkv {

enum CharacterFlag : uint32_t {
  kLetter = 1,  // \p{L}
  kNumber = 2,  // \p{N}
  kSpace = 4,   // \s
  kWord = 8,    // \w
};

constexpr int kCharacterFlagBits = 4;

extern const uint8_t kAsciiFlags[0x80];

// Each range begins at its value's upper bits, ends where the next begins, and has the flags of its
// value's lower bits.
extern const uint32_t kCharacterRanges[];
extern const size_t kCharacterRangeCount;

// The flags of a code point, which must be at most U+10FFFF.
inline uint32_t CharacterFlags(uint32_t code_point) {
  if (code_point < 0x80) {
    return kAsciiFlags[code_point];
  }
  constexpr uint32_t kFlags = (1u << kCharacterFlagBits) - 1;
  const uint32_t* end = kCharacterRanges + kCharacterRangeCount;
  const uint32_t* after =
      std::upper_bound(kCharacterRanges, end, code_point << kCharacterFlagBits | kFlags);
  return after[-1] & kFlags;
}

}  // namespace molkv

#endif  // MOLKV_SRC_UNICODE_TABLES_H_
