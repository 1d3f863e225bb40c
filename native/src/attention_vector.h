// Expert attention over any vector instructions: included once by each vector kernel's file.
//
// Everything here is in an unnamed namespace and calls nothing of the standard library. Otherwise
// the linker could merge a function that was compiled for one processor into code for another.
//
// `Vector` wraps the instructions (attention_avx2.cc shows all that it has). Sums are float32. The
// order of every sum depends only on the token's own rows: not on the tokens computed beside it,
// the rows before its window or the number of threads. So a kernel's results are the same to the
// bit however a text is cut into calls. Rows that no token of a tile attends are never read.

#ifndef MOLKV_SRC_ATTENTION_VECTOR_H_
#define MOLKV_SRC_ATTENTION_VECTOR_H_

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "attention.h"
#include "attention_half.h"
#include "attention_values.h"
#include "attention_vector_math.h"

namespace molkv {
namespace {

// One tile of kTokens tokens, 1 or kTokenBlock.
template <typename Vector, typename Key, typename Value, size_t kTokens>
class Tile {
 public:
  using Register = typename Vector::Register;
  using Values = ValuePlane<Vector, Value>;

  Tile(const AttentionCall& call, uint32_t token, uint32_t head, uint32_t heads, float* scratch)
      : call_(call),
        inputs_(*call.inputs),
        sizes_(TileScratchOf(call)),
        token_(token),
        head_(head),
        heads_(heads),
        queries_(scratch),
        scores_(scratch + kTokens * heads * sizes_.query),
        experts_(inputs_.experts),
        key_size_(inputs_.key_size),
        key_width_(size_t{inputs_.heads} * inputs_.key_size),
        value_width_(inputs_.value_size),
        part_(inputs_.value_size / inputs_.heads),
        first_row_(RowsOf(call, token).first),
        pairs_((size_t{RowsOf(call, token + kTokens - 1).own} - first_row_ + 1) * experts_),
        keys_(static_cast<const Key*>(inputs_.keys) + first_row_ * experts_ * key_width_ +
              head * key_size_),
        values_(inputs_, first_row_ * experts_, head * part_),
        output_(call.output + token * value_width_ + head * part_) {}

  void Run() {
    for (size_t head = 0; head < heads_; ++head) {
      Prefetch(keys_, key_width_ * sizeof(Key), 0, kKeyGroupsAhead * kPairs, head);
    }
    PrepareQueries();
    Dots();
    for (size_t token = 0; token < kTokens; ++token) {
      for (size_t head = 0; head < heads_; ++head) {
        // The values come next; memory need not wait for the softmax.
        if (kTokens == 1) PrefetchValues(0, kValueGroupsAhead * kRows, head);
        Softmax(token, head);
      }
    }
    if (kTokens == 1) {
      MixOne();
    } else {
      MixBlock();
    }
  }

 private:
  float* QueryOf(size_t token, size_t head) {
    return queries_ + (token * heads_ + head) * sizes_.query;
  }
  float* ScoresOf(size_t token, size_t head) {
    return scores_ + (token * heads_ + head) * sizes_.scores;
  }

  // Queries over sqrt(dk), padded with zeros to whole vectors.
  void PrepareQueries() {
    const Register factor =
        Vector::Divide(Vector::Fill(1.0f), Vector::SquareRoot(static_cast<float>(key_size_)));
    for (size_t token = 0; token < kTokens; ++token) {
      for (size_t head = 0; head < heads_; ++head) {
        const float* query =
            inputs_.query + (token_ + token) * key_width_ + (head_ + head) * key_size_;
        float* prepared = QueryOf(token, head);
        for (size_t i = 0; i < key_size_; i += kWidth) {
          Vector::Store(prepared + i, Vector::Multiply(LoadUpTo(query + i, key_size_ - i), factor));
        }
      }
    }
  }

  // Dot products of all queries and keys.
  void Dots() {
    if constexpr (Vector::kIntegerDots && sizeof(Key) == 1) {
      Vector::template Dots<kTokens>({keys_, key_width_, pairs_, heads_, key_size_, queries_,
                                      sizes_.query, scores_, sizes_.scores});
    } else {
      FloatDots();
    }
  }

  // As many at once as a vector has lanes, so that one transposing sum serves them all.
  void FloatDots() {
    for (size_t pair = 0; pair < pairs_; pair += kPairs) {
      const Key* keys[kPairs];
      Unroll<kPairs>([&](auto i) {
        // The last group repeats the last pair; nobody reads those scores.
        keys[i] = keys_ + (pair + i < pairs_ ? pair + i : pairs_ - 1) * key_width_;
      });
      for (size_t head = 0; head < heads_; ++head) {
        Prefetch(keys_, key_width_ * sizeof(Key), pair + kKeyGroupsAhead * kPairs, kPairs, head);
        const float* query = QueryOf(0, head);
        Register sums[kWidth];
        Unroll<kWidth>([&](auto i) { sums[i] = Vector::Zero(); });
        size_t i = 0;
        for (; i + kWidth <= key_size_; i += kWidth) {
          AddProducts(query + i, sums, [&](auto pair_index) MOLKV_LAMBDA_INLINE {
            return Vector::Load(keys[pair_index] + i);
          });
        }
        if (i < key_size_) {
          AddProducts(query + i, sums, [&](auto pair_index) MOLKV_LAMBDA_INLINE {
            return Vector::LoadPart(keys[pair_index] + i, key_size_ - i);
          });
        }
        StoreDots(Vector::SumEach(sums), pair, head);
        Unroll<kPairs>([&](auto pair_index) { keys[pair_index] += key_size_; });
      }
    }
  }

  template <typename LoadKey>
  MOLKV_INLINE void AddProducts(const float* query, Register* sums, const LoadKey& load_key) {
    Register queries[kTokens];
    Unroll<kTokens>([&](auto token) MOLKV_LAMBDA_INLINE {
      queries[token] = Vector::Load(query + token * heads_ * sizes_.query);
    });
    Unroll<kPairs>([&](auto pair) MOLKV_LAMBDA_INLINE {
      const Register key = load_key(pair);
      Unroll<kTokens>([&](auto token) MOLKV_LAMBDA_INLINE {
        Register& sum = sums[token * kPairs + pair];
        sum = Vector::MultiplyAdd(key, queries[token], sum);
      });
    });
  }

  MOLKV_INLINE void StoreDots(Register dots, size_t pair, size_t head) {
    if (kTokens == 1) {
      Vector::Store(ScoresOf(0, head) + pair, dots);
      return;
    }
    float buffer[kWidth];
    Vector::Store(buffer, dots);
    for (size_t token = 0; token < kTokens; ++token) {
      memcpy(ScoresOf(token, head) + pair, buffer + token * kPairs, kPairs * sizeof(float));
    }
  }

  // Turns dot products into weights: softmax over the token's own rows, times the values' scales.
  // Pairs of the tile that the token does not attend get the weight 0.
  void Softmax(size_t token, size_t head) {
    const AttendedRows rows = RowsOf(call_, token_ + token);
    const size_t skipped = (rows.first - first_row_) * experts_;
    const size_t count = (size_t{rows.own} - rows.first + 1) * experts_;
    const size_t first_pair = rows.first * experts_;
    const size_t oldest = call_.ages - 1 - (rows.own - rows.first);
    const float* bias =
        call_.bias + ((head_ + head) * size_t{call_.ages} + oldest) * inputs_.experts;
    const float* key_scales = inputs_.key_scales ? inputs_.key_scales + first_pair : nullptr;
    const float* value_scales = static_cast<const float*>(inputs_.value_scales);
    value_scales = value_scales && Values::kScalesWeights ? value_scales + first_pair : nullptr;
    float* scores = ScoresOf(token, head) + skipped;

    Register largest = Vector::Fill(-__builtin_inff());
    for (size_t i = 0; i < count; i += kWidth) {
      const size_t left = count - i;
      const Register scale = key_scales ? LoadUpTo(key_scales + i, left) : Vector::Fill(1.0f);
      Register score = Vector::Load(scores + i);
      score = Vector::MultiplyAdd(score, scale, LoadUpTo(bias + i, left));
      if (left < kWidth) score = FillFrom(score, left, -__builtin_inff());
      Vector::Store(scores + i, score);
      largest = Vector::Max(score, largest);
    }
    largest = Vector::Fill(Vector::LargestOf(largest));
    Register sum = Vector::Zero();
    for (size_t i = 0; i < count; i += kWidth) {
      const Register weight =
          Exponential<Vector>(Vector::Subtract(Vector::Load(scores + i), largest));
      sum = Vector::Add(sum, weight);
      Vector::Store(scores + i, weight);
    }
    const Register factor = Vector::Divide(Vector::Fill(1.0f), Vector::Fill(Vector::SumOf(sum)));
    size_t i = 0;
    for (; i < count; i += kWidth) {
      Register weight = Vector::Multiply(Vector::Load(scores + i), factor);
      if (value_scales) weight = Vector::Multiply(weight, LoadUpTo(value_scales + i, count - i));
      Vector::Store(scores + i, weight);
    }
    memset(scores - skipped, 0, skipped * sizeof(float));
    if (skipped + i < pairs_) memset(scores + i, 0, (pairs_ - skipped - i) * sizeof(float));
  }

  // The weighted sum of values for one token. Several rows at once, because the sums go through
  // memory: a token's output is wider than all registers.
  void MixOne() {
    memset(output_, 0, heads_ * part_ * sizeof(float));
    size_t pair = 0;
    for (; pair + kRows <= pairs_; pair += kRows) AddRows<kRows>(pair);
    for (; pair < pairs_; ++pair) AddRows<1>(pair);
  }

  template <size_t kCount>
  MOLKV_INLINE void AddRows(size_t pair) {
    for (size_t head = 0; head < heads_; ++head) {
      PrefetchValues(pair + kValueGroupsAhead * kRows, kCount, head);
      Register weights[kCount];
      const float* from = ScoresOf(0, head) + pair;
      Unroll<kCount>([&](auto i) MOLKV_LAMBDA_INLINE { weights[i] = Vector::Fill(from[i]); });
      const size_t end = (head + 1) * part_;
      size_t column = head * part_;
      for (; column + kTogether * kWidth <= end; column += kTogether * kWidth) {
        Register sums[kTogether];
        Unroll<kTogether>([&](auto j) MOLKV_LAMBDA_INLINE {
          sums[j] = Vector::Load(output_ + column + j * kWidth);
        });
        Unroll<kCount>([&](auto i) MOLKV_LAMBDA_INLINE {
          Register values[kTogether];
          values_.template Load<kTogether>(pair + i, column, values);
          Unroll<kTogether>([&](auto j) MOLKV_LAMBDA_INLINE {
            sums[j] = Vector::MultiplyAdd(values[j], weights[i], sums[j]);
          });
        });
        Unroll<kTogether>([&](auto j) MOLKV_LAMBDA_INLINE {
          Vector::Store(output_ + column + j * kWidth, sums[j]);
        });
      }
      if (column < end) {
        const size_t left = end - column;
        Register sum = Vector::LoadPart(output_ + column, left);
        Unroll<kCount>([&](auto i) MOLKV_LAMBDA_INLINE {
          sum = Vector::MultiplyAdd(values_.LoadPart(pair + i, column, left), weights[i], sum);
        });
        Vector::StorePart(output_ + column, left, sum);
      }
    }
  }

  // The same for a block of tokens: some columns at a time, whose sums stay in registers, so that
  // a value is converted once for all tokens.
  void MixBlock() {
    for (size_t head = 0; head < heads_; ++head) {
      const size_t end = (head + 1) * part_;
      size_t column = head * part_;
      for (; column + Vector::kColumns * kWidth <= end; column += Vector::kColumns * kWidth) {
        MixColumns<Vector::kColumns>(head, column, kWidth);
      }
      for (; column + kWidth <= end; column += kWidth) MixColumns<1>(head, column, kWidth);
      if (column < end) MixColumns<1>(head, column, end - column);
    }
  }

  template <size_t kColumns>
  MOLKV_INLINE void MixColumns(size_t head, size_t column, size_t width) {
    Register sums[kTokens][kColumns];
    Unroll<kTokens>([&](auto token) MOLKV_LAMBDA_INLINE {
      Unroll<kColumns>([&](auto i) MOLKV_LAMBDA_INLINE { sums[token][i] = Vector::Zero(); });
    });
    const float* weights = ScoresOf(0, head);
    const size_t stride = heads_ * sizes_.scores;
    for (size_t pair = 0; pair < pairs_; ++pair, ++weights) {
      Register value[kColumns];
      if (width < kWidth) {  // then kColumns is 1
        value[0] = values_.LoadPart(pair, column, width);
      } else {
        values_.template Load<kColumns>(pair, column, value);
      }
      Unroll<kTokens>([&](auto token) MOLKV_LAMBDA_INLINE {
        const Register weight = Vector::Fill(weights[token * stride]);
        Unroll<kColumns>([&](auto i) MOLKV_LAMBDA_INLINE {
          sums[token][i] = Vector::MultiplyAdd(value[i], weight, sums[token][i]);
        });
      });
    }
    Unroll<kTokens>([&](auto token) MOLKV_LAMBDA_INLINE {
      Unroll<kColumns>([&](auto i) MOLKV_LAMBDA_INLINE {
        float* output = output_ + token * value_width_ + column + i * kWidth;
        if (width < kWidth) {
          Vector::StorePart(output, width, sums[token][i]);
        } else {
          Vector::Store(output, sums[token][i]);
        }
      });
    });
  }

  // Asks for some vectors of a plane, which are read in strips that the processor does not
  // recognise as a stream. Heads that are computed in turn share what lies one behind the other;
  // where the other heads are another thread's, a head asks for its own strips alone.
  MOLKV_INLINE void Prefetch(const void* plane, size_t pair_bytes, size_t pair, size_t count,
                             size_t head) {
    if (pair + count > pairs_) return;
    const char* first = static_cast<const char*>(plane) + pair * pair_bytes;
    if (heads_ == inputs_.heads) {
      const size_t share = count * pair_bytes / heads_;
      PrefetchBytes(first + head * share, share);
      return;
    }
    const size_t strip = pair_bytes / inputs_.heads;
    for (size_t i = 0; i < count; ++i) PrefetchBytes(first + i * pair_bytes + head * strip, strip);
  }

  // Into the second-level cache, which can wait for more lines at once than the first.
  static MOLKV_INLINE void PrefetchBytes(const char* first, size_t size) {
    constexpr size_t kLine = 64;
    for (size_t i = 0; i < size; i += kLine) __builtin_prefetch(first + i, 0, 2);
  }

  MOLKV_INLINE void PrefetchValues(size_t pair, size_t count, size_t head) {
    Prefetch(values_.address(), values_.pair_bytes(), pair, count, head);
  }

  // A vector, or its first `left` elements and zeros. Memory behind them is not read.
  template <typename Element>
  static MOLKV_INLINE Register LoadUpTo(const Element* elements, size_t left) {
    return left < kWidth ? Vector::LoadPart(elements, left) : Vector::Load(elements);
  }

  // The first `kept` elements, then `value`.
  static MOLKV_INLINE Register FillFrom(Register elements, size_t kept, float value) {
    float buffer[kWidth];
    Vector::Store(buffer, elements);
    for (size_t i = kept; i < kWidth; ++i) buffer[i] = value;
    return Vector::Load(buffer);
  }

  static constexpr size_t kWidth = Vector::kWidth;
  static constexpr size_t kPairs = kWidth / kTokens;
  static constexpr size_t kTogether = Values::kTogether;
  static constexpr size_t kRows = 8;  // pairs whose values are added at once for a single token
  static constexpr size_t kKeyGroupsAhead = 2;
  static constexpr size_t kValueGroupsAhead = 4;

  const AttentionCall& call_;
  const molkv_attention_inputs& inputs_;
  const TileScratch sizes_;
  const uint32_t token_;
  const uint32_t head_;
  const size_t heads_;
  float* const queries_;  // [kTokens, heads_], padded
  float* const scores_;   // [kTokens, heads_], padded
  const size_t experts_;
  const size_t key_size_;
  const size_t key_width_;
  const size_t value_width_;
  const size_t part_;  // a head's part of a value
  const size_t first_row_;
  const size_t pairs_;  // from the oldest row of the first token to the last token's own
  const Key* const keys_;
  const Values values_;
  float* const output_;
};

template <typename Vector, typename Key, typename Value>
void AttendTile(const AttentionCall& call, const AttentionTile& tile, float* scratch) {
  // Tokens with small windows share few rows: blocks would multiply with zeros.
  if (tile.tokens == kTokenBlock && call.inputs->window >= 2 * kTokenBlock) {
    Tile<Vector, Key, Value, kTokenBlock>(call, tile.token, tile.head, tile.heads, scratch).Run();
    return;
  }
  for (uint32_t token = tile.token; token < tile.token + tile.tokens; ++token) {
    Tile<Vector, Key, Value, 1>(call, token, tile.head, tile.heads, scratch).Run();
  }
}

template <typename Vector, typename Key>
void AttendKeys(const AttentionCall& call, const AttentionTile& tile, float* scratch) {
  switch (call.inputs->value_dtype) {
    case MOLKV_INT8:
      return AttendTile<Vector, Key, int8_t>(call, tile, scratch);
    case MOLKV_INT4:
      return AttendTile<Vector, Key, Int4Pair>(call, tile, scratch);
    default:
      return AttendTile<Vector, Key, Half>(call, tile, scratch);
  }
}

template <typename Vector>
void Attend(const AttentionCall& call, const AttentionTile& tile, float* scratch) {
  if (call.inputs->key_dtype == MOLKV_INT8) {
    AttendKeys<Vector, int8_t>(call, tile, scratch);
  } else {
    AttendKeys<Vector, Half>(call, tile, scratch);
  }
}

}  // namespace
}  // namespace molkv

#endif  // MOLKV_SRC_ATTENTION_VECTOR_H_
