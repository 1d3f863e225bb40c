// Expert attention with NEON and the dot product instructions of ARMv8.2. They multiply 8-bit
// integers only, so a query is written as integers of 24 bits, each cut into three limbs of 8 bits.
// The integer sums are exact; what is lost is at most half a unit of the query's own largest
// element in float32, so the kernel keeps the bound of the others. One limb, the usual quantization
// of a query, would not: its error is 1/254 of the largest element. Half precision keys, and all
// values, take the same way as in the NEON kernel.

#include "attention.h"

#if defined(__aarch64__) && defined(__ARM_FEATURE_DOTPROD)

#include "attention_neon.h"

namespace molkv {
namespace {

// What Tile hands over: keys of `pairs` pairs, and queries and scores of [kTokens, heads].
struct IntegerDots {
  const int8_t* keys;
  size_t key_width;
  size_t pairs;
  size_t heads;
  size_t key_size;
  float* queries;
  size_t query_stride;
  float* scores;
  size_t score_stride;
};

struct NeonDotprod : Neon {
  static constexpr bool kIntegerDots = true;

  template <size_t kTokens>
  static void Dots(const IntegerDots& dots) {
    for (size_t i = 0; i < kTokens * dots.heads; ++i) {
      WriteLimbs(dots.queries + i * dots.query_stride, dots.key_size, dots.query_stride);
    }
    for (size_t pair = 0; pair < dots.pairs; ++pair) {
      for (size_t head = 0; head < dots.heads; ++head) {
        DotsOfPair<kTokens>(dots, pair, head);
      }
    }
  }

 private:
  static constexpr size_t kBlock = 16;  // bytes of a register
  static constexpr size_t kLimbs = 3;
  // The largest integer, with room for rounding up: three limbs from -128 to 127 hold 127 more.
  static constexpr float kLargest = 127 * 65536 + 127 * 256;

  // A prepared query's memory: its floats, then in the second half the limbs, block by block with
  // the three limbs of a block together, then at the end what each limb's sum counts.
  static const int8_t* LimbsOf(const float* query, size_t stride) {
    return reinterpret_cast<const int8_t*>(query + stride / 2);
  }
  static float* FactorsOf(float* query, size_t stride) { return query + stride - 4; }

  static void WriteLimbs(float* query, size_t size, size_t stride) {
    float largest = 0;
    float nothing = 0;  // NaN if an element is not finite, so that the scores become NaN
    for (size_t i = 0; i < size; ++i) {
      const float magnitude = __builtin_fabsf(query[i]);
      if (magnitude > largest) largest = magnitude;
      nothing += 0 * query[i];
    }
    // Queries so small that the unit would lose bits cannot change a softmax.
    const bool vanishes = !(largest > 1e-30f) || nothing != 0;
    const float unit = vanishes ? nothing : largest / kLargest;
    const float inverse = vanishes ? 0 : kLargest / largest;
    int8_t* limbs = const_cast<int8_t*>(LimbsOf(query, stride));
    const size_t padded = (size + kBlock - 1) / kBlock * kBlock;
    for (size_t i = 0; i < padded; ++i) {
      // The floats of a query are padded with zeros too, to a multiple of 8.
      const float scaled = i < size && !vanishes ? query[i] * inverse : 0;
      int32_t integer = vcvtns_s32_f32(scaled);
      int8_t* limb = limbs + i / kBlock * kLimbs * kBlock + i % kBlock;
      for (size_t j = 0; j < kLimbs; ++j) {
        limb[j * kBlock] = static_cast<int8_t>(integer);
        integer = (integer - limb[j * kBlock]) / 256;
      }
    }
    const float factors[4] = {unit, 256 * unit, 65536 * unit, 0};
    memcpy(FactorsOf(query, stride), factors, sizeof(factors));
  }

  template <size_t kTokens>
  static MOLKV_INLINE void DotsOfPair(const IntegerDots& dots, size_t pair, size_t head) {
    const int8_t* key = dots.keys + pair * dots.key_width + head * dots.key_size;
    float* queries = dots.queries + head * dots.query_stride;
    const size_t token_stride = dots.heads * dots.query_stride;
    const int8_t* limbs = LimbsOf(queries, dots.query_stride);
    int32x4_t sums[kTokens][kLimbs];
    Unroll<kTokens>([&](auto token) MOLKV_LAMBDA_INLINE {
      Unroll<kLimbs>([&](auto limb) MOLKV_LAMBDA_INLINE { sums[token][limb] = vdupq_n_s32(0); });
    });
    const auto add = [&](int8x16_t numbers) MOLKV_LAMBDA_INLINE {
      Unroll<kTokens>([&](auto token) MOLKV_LAMBDA_INLINE {
        const int8_t* of_token = limbs + token * token_stride * sizeof(float);
        Unroll<kLimbs>([&](auto limb) MOLKV_LAMBDA_INLINE {
          const int8x16_t factors = vld1q_s8(of_token + limb * kBlock);
          sums[token][limb] = vdotq_s32(sums[token][limb], numbers, factors);
        });
      });
      limbs += kLimbs * kBlock;
    };
    size_t i = 0;
    for (; i + kBlock <= dots.key_size; i += kBlock) add(vld1q_s8(key + i));
    if (i < dots.key_size) {
      int8_t buffer[kBlock] = {};
      memcpy(buffer, key + i, dots.key_size - i);
      add(vld1q_s8(buffer));
    }
    Unroll<kTokens>([&](auto token) MOLKV_LAMBDA_INLINE {
      const int32x4_t low = vpaddq_s32(sums[token][0], sums[token][1]);
      const int32x4_t high = vpaddq_s32(sums[token][2], sums[token][2]);
      const float32x4_t all = vcvtq_f32_s32(vpaddq_s32(low, high));
      const float32x4_t factors =
          vld1q_f32(FactorsOf(queries + token * token_stride, dots.query_stride));
      dots.scores[(token * dots.heads + head) * dots.score_stride + pair] =
          vaddvq_f32(vmulq_f32(all, factors));
    });
  }
};

}  // namespace

const AttentionKernel kAttentionNeonDotprod = {"neon-dotprod", ProcessorHasDotprod,
                                               Attend<NeonDotprod>, Exponentials<NeonDotprod>};

}  // namespace molkv

#elif defined(__aarch64__)

namespace molkv {

// Built without the instructions, as builds without options of each file's own do.
const AttentionKernel kAttentionNeonDotprod = {"neon-dotprod", [] { return false; }, nullptr,
                                               nullptr};

}  // namespace molkv

#endif  // defined(__aarch64__)
