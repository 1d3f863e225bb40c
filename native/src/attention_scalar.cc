// The readable kernel, which all others are compared with. Sums are double, so that a difference
// from it is the other kernel's rounding.

#include <cmath>

#include "attention.h"
#include "attention_half.h"
#include "int4.h"

namespace molkv {
namespace {

template <typename Key>
void Score(const AttentionCall& call, uint32_t token, uint32_t head, float* scores) {
  const molkv_attention_inputs& inputs = *call.inputs;
  const AttendedRows rows = RowsOf(call, token);
  const size_t experts = inputs.experts, key_size = inputs.key_size;
  const float* query = inputs.query + (size_t{token} * inputs.heads + head) * key_size;
  for (uint32_t row = rows.first; row <= rows.own; ++row) {
    for (size_t expert = 0; expert < experts; ++expert) {
      const size_t pair = row * experts + expert;
      const Key* key =
          static_cast<const Key*>(inputs.keys) + (pair * inputs.heads + head) * key_size;
      double score = 0;
      for (size_t i = 0; i < key_size; ++i) score += double{query[i]} * ToFloat(key[i]);
      score /= std::sqrt(static_cast<double>(key_size));
      if (inputs.key_scales != nullptr) score *= inputs.key_scales[pair];
      const size_t age = rows.own - row;
      score += inputs.age_bias[(head * experts + expert) * inputs.window + age];
      *scores++ = static_cast<float>(score);
    }
  }
}

void Softmax(float* scores, size_t count) {
  float largest = scores[0];
  for (size_t i = 1; i < count; ++i) {
    if (scores[i] > largest) largest = scores[i];
  }
  double sum = 0;
  for (size_t i = 0; i < count; ++i) {
    scores[i] = std::exp(scores[i] - largest);
    sum += scores[i];
  }
  for (size_t i = 0; i < count; ++i) scores[i] = static_cast<float>(scores[i] / sum);
}

// A stored value as a number, but for the scale of a whole vector, which goes to the weight.
template <typename Value>
float ValueAt(const molkv_attention_inputs& inputs, size_t place) {
  return ToFloat(static_cast<const Value*>(inputs.values)[place]);
}

template <>
float ValueAt<Int4Pair>(const molkv_attention_inputs& inputs, size_t place) {
  const uint8_t bits = static_cast<const Int4Pair*>(inputs.values)[place / 2].bits;
  const int element = (place % 2 == 0 ? bits : bits >> 4) & 15;
  const Half scale = static_cast<const Half*>(inputs.value_scales)[place / MOLKV_INT4_GROUP];
  return static_cast<float>(element < 8 ? element : element - 16) * ToFloat(scale);
}

template <typename Value>
void Mix(const AttentionCall& call, uint32_t token, uint32_t head, const float* weights) {
  const molkv_attention_inputs& inputs = *call.inputs;
  const AttendedRows rows = RowsOf(call, token);
  const size_t first = size_t{rows.first} * inputs.experts;
  const size_t last = (size_t{rows.own} + 1) * inputs.experts;
  const size_t width = inputs.value_size, part = width / inputs.heads;
  const bool grouped = inputs.value_dtype == MOLKV_INT4;  // then values have their scales already
  const float* scales = grouped ? nullptr : static_cast<const float*>(inputs.value_scales);
  for (size_t column = head * part; column < (head + 1) * part; ++column) {
    double sum = 0;
    for (size_t pair = first; pair < last; ++pair) {
      double weight = weights[pair - first];
      if (scales != nullptr) weight *= scales[pair];
      sum += weight * ValueAt<Value>(inputs, pair * width + column);
    }
    call.output[token * width + column] = static_cast<float>(sum);
  }
}

void Attend(const AttentionCall& call, const AttentionTile& tile, float* scores) {
  const molkv_attention_inputs& inputs = *call.inputs;
  for (uint32_t token = tile.token; token < tile.token + tile.tokens; ++token) {
    const AttendedRows rows = RowsOf(call, token);
    const size_t pairs = size_t{rows.own - rows.first + 1} * inputs.experts;
    for (uint32_t head = tile.head; head < tile.head + tile.heads; ++head) {
      const auto score = inputs.key_dtype == MOLKV_INT8 ? Score<int8_t> : Score<Half>;
      const auto mix = inputs.value_dtype == MOLKV_INT8   ? Mix<int8_t>
                       : inputs.value_dtype == MOLKV_INT4 ? Mix<Int4Pair>
                                                          : Mix<Half>;
      score(call, token, head, scores);
      Softmax(scores, pairs);
      mix(call, token, head, scores);
    }
  }
}

void Exponentials(const float* values, float* results, size_t count) {
  for (size_t i = 0; i < count; ++i) results[i] = std::exp(values[i]);
}

bool Supported() { return true; }

}  // namespace

const AttentionKernel kAttentionScalar = {"scalar", Supported, Attend, Exponentials};

}  // namespace molkv
