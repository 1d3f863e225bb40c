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

  // Vectors that are best loaded together.
  static constexpr size_t kTogether = 1;

  ValuePlane(const molkv_attention_inputs& inputs, size_t pair, size_t column)
      : width_(inputs.value_size),
        values_(static_cast<const Value*>(inputs.values) + pair * width_ + column) {}

  // kCount vectors one behind the other.
  template <size_t kCount>
  MOLKV_INLINE void Load(size_t pair, size_t column, Register* values) const {
    const Value* first = values_ + pair * width_ + column;
    Unroll<kCount>(
        [&](auto i) MOLKV_LAMBDA_INLINE { values[i] = Vector::Load(first + i * Vector::kWidth); });
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
  static constexpr size_t kTogether = MOLKV_INT4_GROUP / Vector::kWidth;  // those of a group
  static_assert(MOLKV_INT4_GROUP % Vector::kWidth == 0, "a vector has one scale");

  ValuePlane(const molkv_attention_inputs& inputs, size_t pair, size_t column)
      : pair_bytes_(inputs.value_size / 2),
        pair_groups_(inputs.value_size / MOLKV_INT4_GROUP),
        values_(static_cast<const Int4Pair*>(inputs.values) + pair * pair_bytes_ + column / 2),
        scales_(static_cast<const Half*>(inputs.value_scales) + pair * pair_groups_ +
                column / MOLKV_INT4_GROUP) {}

  // `column` is a multiple of the vectors' columns, or of a group.
  template <size_t kCount>
  MOLKV_INLINE void Load(size_t pair, size_t column, Register* values) const {
    const Int4Pair* first = values_ + pair * pair_bytes_ + column / 2;
    const Half* scales = scales_ + pair * pair_groups_ + column / MOLKV_INT4_GROUP;
    Register scale;
    Unroll<kCount>([&](auto i) MOLKV_LAMBDA_INLINE {
      if (i % kTogether == 0) scale = Vector::Int4Scale(scales[i / kTogether]);
      values[i] = Vector::Load(first + i * Vector::kWidth / 2, scale);
    });
  }

  MOLKV_INLINE Register LoadPart(size_t pair, size_t column, size_t) const {
    Register value;
    Load<1>(pair, column, &value);
    return value;
  }

  const void* address() const { return values_; }
  size_t pair_bytes() const { return pair_bytes_; }

 private:
  size_t pair_bytes_;
  size_t pair_groups_;
  const Int4Pair* values_;
  const Half* scales_;
};

}  // namespace
}  // namespace molkv

#endif  // MOLKV_SRC_ATTENTION_VALUES_H_
