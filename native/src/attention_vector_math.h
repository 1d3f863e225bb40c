// What expert attention's vector kernels need besides their instructions: loops without counters,
// and the exponential function. In an unnamed namespace for the reason given in attention_vector.h.

#ifndef MOLKV_SRC_ATTENTION_VECTOR_MATH_H_
#define MOLKV_SRC_ATTENTION_VECTOR_MATH_H_

#include <stddef.h>
#include <string.h>

#include <utility>

#define MOLKV_INLINE inline __attribute__((always_inline))
#define MOLKV_LAMBDA_INLINE __attribute__((always_inline))

namespace molkv {
namespace {

template <size_t kIndex>
struct Index {
  constexpr operator size_t() const { return kIndex; }
};

template <typename Body, size_t... kIndices>
MOLKV_INLINE void UnrollIndices(const Body& body, std::index_sequence<kIndices...>) {
  (body(Index<kIndices>{}), ...);
}

// Calls body(0) to body(kCount - 1), each compiled on its own, so that arrays of vectors that it
// indexes stay in registers.
template <size_t kCount, typename Body>
MOLKV_INLINE void Unroll(const Body& body) {
  UnrollIndices(body, std::make_index_sequence<kCount>{});
}

// e to the power of x, for x of at most 0; 0 below the smallest normal number's logarithm. The
// error is below 2 units in the last place. Polynomial and reduction are those of Cephes' expf.
template <typename Vector>
MOLKV_INLINE typename Vector::Register Exponential(typename Vector::Register x) {
  using Register = typename Vector::Register;
  const Register least = Vector::Fill(-87.33654f);
  const Register bounded = Vector::Max(least, x);
  const Register power = Vector::Round(Vector::Multiply(bounded, Vector::Fill(1.44269504f)));
  // ln 2 in two parts, the first with so few bits that its product with `power` is exact.
  Register rest = Vector::MultiplyAdd(power, Vector::Fill(-0.693359375f), bounded);
  rest = Vector::MultiplyAdd(power, Vector::Fill(2.12194440e-4f), rest);
  Register sum = Vector::Fill(1.9875691500e-4f);
  sum = Vector::MultiplyAdd(sum, rest, Vector::Fill(1.3981999507e-3f));
  sum = Vector::MultiplyAdd(sum, rest, Vector::Fill(8.3334519073e-3f));
  sum = Vector::MultiplyAdd(sum, rest, Vector::Fill(4.1665795894e-2f));
  sum = Vector::MultiplyAdd(sum, rest, Vector::Fill(1.6666665459e-1f));
  sum = Vector::MultiplyAdd(sum, rest, Vector::Fill(5.0000001201e-1f));
  sum = Vector::MultiplyAdd(sum, Vector::Multiply(rest, rest), rest);
  sum = Vector::Add(sum, Vector::Fill(1.0f));
  return Vector::ZeroWhereLess(x, least, Vector::Multiply(sum, Vector::PowerOfTwo(power)));
}

template <typename Vector>
void Exponentials(const float* values, float* results, size_t count) {
  for (size_t i = 0; i < count; i += Vector::kWidth) {
    const size_t left = count - i < Vector::kWidth ? count - i : Vector::kWidth;
    float buffer[Vector::kWidth] = {};
    memcpy(buffer, values + i, left * sizeof(float));
    Vector::Store(buffer, Exponential<Vector>(Vector::Load(buffer)));
    memcpy(results + i, buffer, left * sizeof(float));
  }
}

}  // namespace
}  // namespace molkv

#endif  // MOLKV_SRC_ATTENTION_VECTOR_MATH_H_
