// Packed int4 values (docs/format.md, "Data types"). Plain C++ without the standard library's
// functions, because files that are compiled for one processor include it.

#ifndef MOLKV_SRC_INT4_H_
#define MOLKV_SRC_INT4_H_

#include <stdint.h>

namespace molkv {

// Two elements in two's complement, the first in the low four bits.
struct Int4Pair {
  uint8_t bits;
};

}  // namespace molkv

#endif  // MOLKV_SRC_INT4_H_
