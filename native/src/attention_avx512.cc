// Expert attention with AVX-512 (F, BW, VL and DQ).

#include "attention.h"

#if defined(__x86_64__) && defined(__AVX512F__) && defined(__AVX512BW__) && \
    defined(__AVX512VL__) && defined(__AVX512DQ__)

// GCC 12 and 13 take their own header's undefined vectors for a mistake (GCC bug 105593).
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#pragma GCC diagnostic ignored "-Wuninitialized"
#endif

#include <immintrin.h>

#include "attention_vector.h"

namespace molkv {
namespace {

struct Avx512 {
  using Register = __m512;
  static constexpr size_t kWidth = 16;
  static constexpr size_t kColumns = 4;  // with 4 tokens: 16 sums of 32 registers
  static constexpr bool kIntegerDots = false;

  static Register Zero() { return _mm512_setzero_ps(); }
  static Register Fill(float value) { return _mm512_set1_ps(value); }
  static Register Add(Register a, Register b) { return _mm512_add_ps(a, b); }
  static Register Subtract(Register a, Register b) { return _mm512_sub_ps(a, b); }
  static Register Multiply(Register a, Register b) { return _mm512_mul_ps(a, b); }
  static Register Divide(Register a, Register b) { return _mm512_div_ps(a, b); }
  static Register SquareRoot(float value) { return _mm512_sqrt_ps(Fill(value)); }
  // a * b + c, rounded once.
  static Register MultiplyAdd(Register a, Register b, Register c) {
    return _mm512_fmadd_ps(a, b, c);
  }
  // The second one where either is NaN.
  static Register Max(Register a, Register b) { return _mm512_max_ps(a, b); }

  static Register Load(const float* elements) { return _mm512_loadu_ps(elements); }
  static Register Load(const int8_t* elements) {
    return FromInt8(_mm_loadu_si128(reinterpret_cast<const __m128i*>(elements)));
  }
  static Register Load(const Half* elements) {
    return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(elements)));
  }
  // What each of the 16 int4 elements is with a group's scale.
  static Register Int4Scale(Half scale) {
    const Register elements =
        _mm512_setr_ps(0, 1, 2, 3, 4, 5, 6, 7, -8, -7, -6, -5, -4, -3, -2, -1);
    return Multiply(elements, _mm512_cvtph_ps(_mm256_set1_epi16(static_cast<int16_t>(scale.bits))));
  }
  static Register Load(const Int4Pair* pairs, Register scale) {
    // Eight in each lane of a half; its own one moves to the low four bits, which choose.
    const __m512i all = _mm512_permutexvar_epi32(
        _mm512_setr_epi32(0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1),
        _mm512_castsi128_si512(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(pairs))));
    const __m512i to_bottom = _mm512_setr_epi32(0, 4, 8, 12, 16, 20, 24, 28,  //
                                                0, 4, 8, 12, 16, 20, 24, 28);
    return _mm512_permutexvar_ps(_mm512_srlv_epi32(all, to_bottom), scale);
  }
  // The first `count` elements, then zeros; memory behind them is not read.
  static Register LoadPart(const float* elements, size_t count) {
    return _mm512_maskz_loadu_ps(First(count), elements);
  }
  static Register LoadPart(const int8_t* elements, size_t count) {
    return FromInt8(_mm_maskz_loadu_epi8(First(count), elements));
  }
  static Register LoadPart(const Half* elements, size_t count) {
    return _mm512_cvtph_ps(_mm256_maskz_loadu_epi16(First(count), elements));
  }
  static void Store(float* elements, Register values) { _mm512_storeu_ps(elements, values); }
  static void StorePart(float* elements, size_t count, Register values) {
    _mm512_mask_storeu_ps(elements, First(count), values);
  }

  static Register Round(Register values) {
    return _mm512_roundscale_ps(values, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
  }
  // 2 to the power of whole numbers from -126 to 127.
  static Register PowerOfTwo(Register powers) {
    const __m512i exponents = _mm512_add_epi32(_mm512_cvtps_epi32(powers), _mm512_set1_epi32(127));
    return _mm512_castsi512_ps(_mm512_slli_epi32(exponents, 23));
  }
  static Register ZeroWhereLess(Register a, Register b, Register values) {
    return _mm512_maskz_mov_ps(_mm512_cmp_ps_mask(a, b, _CMP_NLT_UQ), values);
  }

  static float LargestOf(Register values) { return _mm512_reduce_max_ps(values); }
  static float SumOf(Register values) { return _mm512_reduce_add_ps(values); }
  // Element i is the sum of the elements of values[i], each in the same order.
  static Register SumEach(const Register* values) {
    const Register a = AddQuarters(SumEachQuarter(values), SumEachQuarter(values + 4));
    const Register b = AddQuarters(SumEachQuarter(values + 8), SumEachQuarter(values + 12));
    return AddQuarters(a, b);
  }

 private:
  static __mmask16 First(size_t count) { return static_cast<__mmask16>((1u << count) - 1); }

  static Register FromInt8(__m128i bytes) {
    return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(bytes));
  }

  // Each quarter of the result holds the sums of that quarter of four vectors.
  static Register SumEachQuarter(const Register* values) {
    const Register first =
        Add(_mm512_unpacklo_ps(values[0], values[1]), _mm512_unpackhi_ps(values[0], values[1]));
    const Register second =
        Add(_mm512_unpacklo_ps(values[2], values[3]), _mm512_unpackhi_ps(values[2], values[3]));
    return Add(_mm512_shuffle_ps(first, second, _MM_SHUFFLE(1, 0, 1, 0)),
               _mm512_shuffle_ps(first, second, _MM_SHUFFLE(3, 2, 3, 2)));
  }

  // Sums of neighbouring quarters: two of the first vector, then two of the second.
  static Register AddQuarters(Register a, Register b) {
    return Add(_mm512_shuffle_f32x4(a, b, _MM_SHUFFLE(2, 0, 2, 0)),
               _mm512_shuffle_f32x4(a, b, _MM_SHUFFLE(3, 1, 3, 1)));
  }
};

}  // namespace

const AttentionKernel kAttentionAvx512 = {"avx512", ProcessorHasAvx512, Attend<Avx512>,
                                          Exponentials<Avx512>};

}  // namespace molkv

#elif defined(__x86_64__)

namespace molkv {

// Built without the instructions, as builds without options of each file's own do.
const AttentionKernel kAttentionAvx512 = {"avx512", [] { return false; }, nullptr, nullptr};

}  // namespace molkv

#endif  // defined(__x86_64__)
