// The alphabet in which byte-level tokenizers write bytes.
//
// Printable characters of Latin-1 stand for themselves, and U+0100 and what follows, in order, for
// the other 68 bytes. It is the alphabet that GPT-2 introduced.

#ifndef MOLKV_SRC_BYTE_ALPHABET_H_
#define MOLKV_SRC_BYTE_ALPHABET_H_

#include <cstdint>

namespace molkv {

// One more than the last character that stands for a byte.
constexpr uint32_t kByteAlphabetEnd = 0x144;

struct ByteAlphabet {
  uint16_t characters[0x100] = {};       // of each byte
  int16_t bytes[kByteAlphabetEnd] = {};  // of each character; -1 where it stands for none

  constexpr ByteAlphabet() {
    for (int16_t& byte : bytes) {
      byte = -1;
    }
    uint16_t next = 0x100;
    for (uint16_t byte = 0; byte < 0x100; ++byte) {
      const bool printable = (byte >= 0x21 && byte <= 0x7E) || (byte >= 0xA1 && byte != 0xAD);
      characters[byte] = printable ? byte : next++;
      bytes[characters[byte]] = static_cast<int16_t>(byte);
    }
  }
};

inline constexpr ByteAlphabet kByteAlphabet;

}  // namespace molkv

#endif  // MOLKV_SRC_BYTE_ALPHABET_H_
