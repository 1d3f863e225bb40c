// The values of a window as vectors of floats. In an unnamed namespace for the reason given in
// attention_vector.h.

#ifndef MOLKV_SRC_ATTENTION_VALUES_H_
#define MOLKV_SRC_ATTENTION_VALUES_H_

#include <stddef.h>

#include "attention_half.h"
#include "attention_vector_math.h"
#include "int4.h"
#include "molkv/molkv.h"

namespace molkv {
namespace {

// Some columns of all pairs, counted from the first pair and column that a tile uses.
template <typename Vector, typename Value>
class ValuePlane {
 public:
  using Register = typename Vector::Register;

  // Scales of whole vectors are not applied here but to the weights.
  static constexpr bool kScalesWeights = true;

  ValuePlane(const molkv_attention_inputs& inputs, size_t pair, size_t column)
      : width_(inputs.value_size),
        values_(static_cast<const Value*>(inputs.values) + pair * width_ + column) {}

  MOLKV_INLINE Register Load(size_t pair, size_t column) const {
    return Vector::Load(values_ + pair * width_ + column);
  }

  // The first `count` elements, then zeros; memory behind them is not read.
  MOLKV_INLINE Register LoadPart(size_t pair, size_t column, size_t count) const {
    return Vector::LoadPart(values_ + pair * width_ + column, count);
  }

  const void* address() const { return values_; }
  size_t pair_bytes() const { return width_ * sizeof(Value); }

 private:
  size_t width_;
  const Value* values_;
};

// Groups have scales of their own, which are applied as a vector is loaded. The products are exact:
// a half times four bits fits a float. A head's part is a multiple of a group, and a group one of a
// vector, so that no vector is cut and none has two scales.
template <typename Vector>
class ValuePlane<Vector, Int4Pair> {
 public:
  using Register = typename Vector::Register;

  static constexpr bool kScalesWeights = false;
  static_assert(MOLKV_INT4_GROUP % Vector::kWidth == 0, "a vector has one scale");

  ValuePlane(const molkv_attention_inputs& inputs, size_t pair, size_t column)
      : width_(inputs.value_size),
        values_(static_cast<const Int4Pair*>(inputs.values) + (pair * width_ + column) / 2),
        scales_(static_cast<const Half*>(inputs.value_scales) +
                (pair * width_ + column) / MOLKV_INT4_GROUP) {}

  MOLKV_INLINE Register Load(size_t pair, size_t column) const {
    const size_t element = pair * width_ + column;
    return Vector::Multiply(Vector::Load(values_ + element / 2),
                            Vector::Fill(scales_[element / MOLKV_INT4_GROUP]));
  }

  MOLKV_INLINE Register LoadPart(size_t pair, size_t column, size_t) const {
    return Load(pair, column);
  }

  const void* address() const { return values_; }
  size_t pair_bytes() const { return width_ / 2; }

 private:
  size_t width_;
  const Int4Pair* values_;
  const Half* scales_;
};

}  // namespace
}  // namespace molkv

#endif  // MOLKV_SRC_ATTENTION_VALUES_H_
