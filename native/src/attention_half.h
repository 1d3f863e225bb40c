// IEEE 754 half precision, for code without instructions for it.

#ifndef MOLKV_SRC_ATTENTION_HALF_H_
#define MOLKV_SRC_ATTENTION_HALF_H_

#include <stdint.h>
#include <string.h>

namespace molkv {

// A half's bits, as a type of its own: kernels are templates over what a plane holds.
struct Half {
  uint16_t bits;
};

static inline float ToFloat(int8_t value) { return static_cast<float>(value); }

static inline float ToFloat(Half half) {
  const uint32_t sign = static_cast<uint32_t>(half.bits & 0x8000) << 16;
  const uint32_t magnitude = half.bits & 0x7fff;
  if (magnitude < 0x0400) {  // zero and subnormal numbers, multiples of 2^-24
    const float value = static_cast<float>(magnitude) * 0x1p-24f;
    return sign != 0 ? -value : value;
  }
  // The exponent's bias is 15 in a half and 127 in a float; infinity and NaN keep all ones.
  const uint32_t exponent = magnitude >= 0x7c00 ? 0x7f800000 : ((magnitude >> 10) + 112) << 23;
  const uint32_t bits = sign | exponent | (magnitude & 0x03ff) << 13;
  float value;
  memcpy(&value, &bits, sizeof(value));
  return value;
}

}  // namespace molkv

#endif  // MOLKV_SRC_ATTENTION_HALF_H_
