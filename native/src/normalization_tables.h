// How characters decompose, are ordered and compose.
//
// The tables are generated from the `tokenizers` library, whose Unicode version decides what a text
// becomes: see native/tools/make_unicode_tables.py. Hangul syllables are not in them, because they
// are computed.

#ifndef MOLKV_SRC_NORMALIZATION_TABLES_H_
#define MOLKV_SRC_NORMALIZATION_TABLES_H_

#include <cstddef>
#include <cstdint>

namespace molkv {

// A character has its canonical combining class, if that is not 0. Of the others, the inert ones
// stay as they are whatever stands before them, and what stands before them stays, too.
constexpr uint32_t kInert = 0;
constexpr uint32_t kActiveStarter = 255;  // changes, or may join what stands before it

constexpr int kNormalizationClassBits = 8;

// All characters before it are inert.
constexpr uint32_t kFirstActive = 0x300;

// Each range begins at its value's upper bits, ends where the next begins, and has the class of its
// value's lower bits. The last is inert.
extern const uint32_t kNormalizationRanges[];
extern const size_t kNormalizationRangeCount;

// What decomposes, in ascending order: a code point, and in the lowest bits how many it becomes,
// less one. They begin in kDecompositions at the place of the same index.
constexpr int kDecompositionSizeBits = 2;
extern const uint32_t kDecomposed[];
extern const uint16_t kDecompositionPlaces[];
extern const size_t kDecomposedCount;
extern const uint32_t kDecompositions[];

// Two code points that become one, in ascending order.
struct Composition {
  uint32_t first;
  uint32_t second;
  uint32_t composed;
};
extern const Composition kCompositions[];
extern const size_t kCompositionCount;

}  // namespace molkv

#endif  // MOLKV_SRC_NORMALIZATION_TABLES_H_
