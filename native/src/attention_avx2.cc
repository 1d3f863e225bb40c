// Expert attention with AVX2, FMA and F16C.

#include "attention.h"

#if defined(__x86_64__) && defined(__AVX2__) && defined(__FMA__) && defined(__F16C__)

#include <immintrin.h>

#include "attention_vector.h"

namespace molkv {
namespace {

struct Avx2 {
  using Register = __m256;
  static constexpr size_t kWidth = 8;
  static constexpr size_t kColumns = 2;  // with 4 tokens: 8 sums of 16 registers
  static constexpr bool kIntegerDots = false;

  static Register Zero() { return _mm256_setzero_ps(); }
  static Register Fill(float value) { return _mm256_set1_ps(value); }
  static Register Add(Register a, Register b) { return _mm256_add_ps(a, b); }
  static Register Subtract(Register a, Register b) { return _mm256_sub_ps(a, b); }
  static Register Multiply(Register a, Register b) { return _mm256_mul_ps(a, b); }
  static Register Divide(Register a, Register b) { return _mm256_div_ps(a, b); }
  static Register SquareRoot(float value) { return _mm256_sqrt_ps(Fill(value)); }
  // a * b + c, rounded once.
  static Register MultiplyAdd(Register a, Register b, Register c) {
    return _mm256_fmadd_ps(a, b, c);
  }
  // The second one where either is NaN.
  static Register Max(Register a, Register b) { return _mm256_max_ps(a, b); }

  static Register Load(const float* elements) { return _mm256_loadu_ps(elements); }
  static Register Load(const int8_t* elements) {
    const __m128i bytes = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(elements));
    return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(bytes));
  }
  static Register Load(const Half* elements) {
    return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(elements)));
  }
  static Register Load(const Int4Pair* pairs, Register scale) {
    int32_t eight;
    memcpy(&eight, pairs, sizeof(eight));
    // All in each lane; its own one moves to the top, and down again with its sign.
    const __m256i to_top = _mm256_setr_epi32(28, 24, 20, 16, 12, 8, 4, 0);
    const __m256i tops = _mm256_sllv_epi32(_mm256_set1_epi32(eight), to_top);
    return Multiply(_mm256_cvtepi32_ps(_mm256_srai_epi32(tops, 28)), scale);
  }
  static Register Int4Scale(Half scale) {
    return _mm256_cvtph_ps(_mm_set1_epi16(static_cast<int16_t>(scale.bits)));
  }
  // The first `count` elements, then zeros; memory behind them is not read.
  template <typename Element>
  static Register LoadPart(const Element* elements, size_t count) {
    Element buffer[kWidth] = {};
    memcpy(buffer, elements, count * sizeof(Element));
    return Load(buffer);
  }
  static void Store(float* elements, Register values) { _mm256_storeu_ps(elements, values); }
  static void StorePart(float* elements, size_t count, Register values) {
    float buffer[kWidth];
    Store(buffer, values);
    memcpy(elements, buffer, count * sizeof(float));
  }

  static Register Round(Register values) {
    return _mm256_round_ps(values, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
  }
  // 2 to the power of whole numbers from -126 to 127.
  static Register PowerOfTwo(Register powers) {
    const __m256i exponents = _mm256_add_epi32(_mm256_cvtps_epi32(powers), _mm256_set1_epi32(127));
    return _mm256_castsi256_ps(_mm256_slli_epi32(exponents, 23));
  }
  static Register ZeroWhereLess(Register a, Register b, Register values) {
    return _mm256_andnot_ps(_mm256_cmp_ps(a, b, _CMP_LT_OQ), values);
  }

  static float LargestOf(Register values) {
    __m128 half = _mm_max_ps(_mm256_castps256_ps128(values), _mm256_extractf128_ps(values, 1));
    half = _mm_max_ps(half, _mm_movehl_ps(half, half));
    return _mm_cvtss_f32(_mm_max_ss(half, _mm_movehdup_ps(half)));
  }
  static float SumOf(Register values) {
    __m128 half = _mm_add_ps(_mm256_castps256_ps128(values), _mm256_extractf128_ps(values, 1));
    half = _mm_add_ps(half, _mm_movehl_ps(half, half));
    return _mm_cvtss_f32(_mm_add_ss(half, _mm_movehdup_ps(half)));
  }
  // Element i is the sum of the elements of values[i], each in the same order.
  static Register SumEach(const Register* values) {
    const Register low = SumEachHalf(values), high = SumEachHalf(values + 4);
    return Add(_mm256_permute2f128_ps(low, high, 0x20), _mm256_permute2f128_ps(low, high, 0x31));
  }

 private:
  // Both halves of the result hold the sums of the halves of four vectors.
  static Register SumEachHalf(const Register* values) {
    const Register first =
        Add(_mm256_unpacklo_ps(values[0], values[1]), _mm256_unpackhi_ps(values[0], values[1]));
    const Register second =
        Add(_mm256_unpacklo_ps(values[2], values[3]), _mm256_unpackhi_ps(values[2], values[3]));
    return Add(_mm256_shuffle_ps(first, second, _MM_SHUFFLE(1, 0, 1, 0)),
               _mm256_shuffle_ps(first, second, _MM_SHUFFLE(3, 2, 3, 2)));
  }
};

}  // namespace

const AttentionKernel kAttentionAvx2 = {"avx2", ProcessorHasAvx2, Attend<Avx2>, Exponentials<Avx2>};

}  // namespace molkv

#elif defined(__x86_64__)

namespace molkv {

// Built without the instructions, as builds without options of each file's own do.
const AttentionKernel kAttentionAvx2 = {"avx2", [] { return false; }, nullptr, nullptr};

}  // namespace molkv

#endif  // defined(__x86_64__)
