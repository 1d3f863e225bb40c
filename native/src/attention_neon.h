// NEON for attention_vector.h: two 128-bit registers as one vector of 8 floats, which is what 8
// bytes of a row become. In an unnamed namespace for the reason given there.

#ifndef MOLKV_SRC_ATTENTION_NEON_H_
#define MOLKV_SRC_ATTENTION_NEON_H_

#include <arm_neon.h>

#include "attention_vector.h"

namespace molkv {
namespace {

struct Neon {
  struct Register {
    float32x4_t low;
    float32x4_t high;
  };
  static constexpr size_t kWidth = 8;
  static constexpr size_t kColumns = 2;  // with 4 tokens: 16 sums of 32 registers
  static constexpr bool kIntegerDots = false;

  static Register Zero() { return Fill(0.0f); }
  static Register Fill(float value) { return {vdupq_n_f32(value), vdupq_n_f32(value)}; }
  static Register Add(Register a, Register b) {
    return {vaddq_f32(a.low, b.low), vaddq_f32(a.high, b.high)};
  }
  static Register Subtract(Register a, Register b) {
    return {vsubq_f32(a.low, b.low), vsubq_f32(a.high, b.high)};
  }
  static Register Multiply(Register a, Register b) {
    return {vmulq_f32(a.low, b.low), vmulq_f32(a.high, b.high)};
  }
  static Register Divide(Register a, Register b) {
    return {vdivq_f32(a.low, b.low), vdivq_f32(a.high, b.high)};
  }
  static Register SquareRoot(float value) {
    const float32x4_t root = vsqrtq_f32(vdupq_n_f32(value));
    return {root, root};
  }
  // a * b + c, rounded once.
  static Register MultiplyAdd(Register a, Register b, Register c) {
    return {vfmaq_f32(c.low, a.low, b.low), vfmaq_f32(c.high, a.high, b.high)};
  }
  // NaN where either is.
  static Register Max(Register a, Register b) {
    return {vmaxq_f32(a.low, b.low), vmaxq_f32(a.high, b.high)};
  }

  static Register Load(const float* elements) {
    return {vld1q_f32(elements), vld1q_f32(elements + 4)};
  }
  static Register Load(const int8_t* elements) {
    const int16x8_t wide = vmovl_s8(vld1_s8(elements));
    return {vcvtq_f32_s32(vmovl_s16(vget_low_s16(wide))), vcvtq_f32_s32(vmovl_high_s16(wide))};
  }
  static Register Load(const Half* elements) {
    const float16x8_t halves = vreinterpretq_f16_u16(vld1q_u16(&elements->bits));
    return {vcvt_f32_f16(vget_low_f16(halves)), vcvt_high_f32_f16(halves)};
  }
  static Register Load(const Int4Pair* pairs, Register scale) {
    int32_t eight;
    memcpy(&eight, pairs, sizeof(eight));
    // All in each lane; its own one moves to the top, and down again with its sign.
    const int32x4_t all = vdupq_n_s32(eight);
    const int32x4_t low = vshlq_s32(all, int32x4_t{28, 24, 20, 16});
    const int32x4_t high = vshlq_s32(all, int32x4_t{12, 8, 4, 0});
    return Multiply({vcvtq_f32_s32(vshrq_n_s32(low, 28)), vcvtq_f32_s32(vshrq_n_s32(high, 28))},
                    scale);
  }
  static Register Int4Scale(Half scale) {
    const float16x4_t halves = vreinterpret_f16_u16(vdup_n_u16(scale.bits));
    return {vcvt_f32_f16(halves), vcvt_f32_f16(halves)};
  }
  // The first `count` elements, then zeros; memory behind them is not read.
  template <typename Element>
  static Register LoadPart(const Element* elements, size_t count) {
    Element buffer[kWidth] = {};
    memcpy(buffer, elements, count * sizeof(Element));
    return Load(buffer);
  }
  static void Store(float* elements, Register values) {
    vst1q_f32(elements, values.low);
    vst1q_f32(elements + 4, values.high);
  }
  static void StorePart(float* elements, size_t count, Register values) {
    float buffer[kWidth];
    Store(buffer, values);
    memcpy(elements, buffer, count * sizeof(float));
  }

  static Register Round(Register values) {
    return {vrndnq_f32(values.low), vrndnq_f32(values.high)};
  }
  // 2 to the power of whole numbers from -126 to 127.
  static Register PowerOfTwo(Register powers) {
    return {PowerOfTwo(powers.low), PowerOfTwo(powers.high)};
  }
  static Register ZeroWhereLess(Register a, Register b, Register values) {
    return {ZeroWhereLess(a.low, b.low, values.low), ZeroWhereLess(a.high, b.high, values.high)};
  }

  static float LargestOf(Register values) { return vmaxvq_f32(vmaxq_f32(values.low, values.high)); }
  static float SumOf(Register values) { return vaddvq_f32(vaddq_f32(values.low, values.high)); }
  // Element i is the sum of the elements of values[i], each in the same order.
  static Register SumEach(const Register* values) {
    return {SumEachOfFour(values), SumEachOfFour(values + 4)};
  }

 private:
  static float32x4_t PowerOfTwo(float32x4_t powers) {
    const int32x4_t exponents = vaddq_s32(vcvtq_s32_f32(powers), vdupq_n_s32(127));
    return vreinterpretq_f32_s32(vshlq_n_s32(exponents, 23));
  }
  static float32x4_t ZeroWhereLess(float32x4_t a, float32x4_t b, float32x4_t values) {
    return vreinterpretq_f32_u32(vbicq_u32(vreinterpretq_u32_f32(values), vcltq_f32(a, b)));
  }
  static float32x4_t SumEachOfFour(const Register* values) {
    const float32x4_t first = vpaddq_f32(vaddq_f32(values[0].low, values[0].high),
                                         vaddq_f32(values[1].low, values[1].high));
    const float32x4_t second = vpaddq_f32(vaddq_f32(values[2].low, values[2].high),
                                          vaddq_f32(values[3].low, values[3].high));
    return vpaddq_f32(first, second);
  }
};

}  // namespace
}  // namespace molkv

#endif  // MOLKV_SRC_ATTENTION_NEON_H_
