// Chooses the next token from logits, the same way to the bit on every platform.
//
// docs/sampling.md is the specification, molkv_runtime/sampler.py its readable implementation. Only
// double operations that IEEE 754 rounds exactly are used, each rounded on its own (so the file is
// compiled with -ffp-contract=off), and every sum runs from the first candidate to the last.

#ifndef MOLKV_SRC_SAMPLER_H_
#define MOLKV_SRC_SAMPLER_H_

#include <cstddef>
#include <cstdint>
#include <vector>

#include "molkv/molkv.h"
#include "random_generator.h"

namespace molkv {

// The specified exponential of x <= 0, -inf included: the same bits everywhere.
double Exponential(double x);

// The tokens that a draw chooses among, most likely first.
struct Candidates {
  std::vector<uint32_t> token_ids;  // by logit descending, then by id ascending
  std::vector<double> weights;      // not normalised; the most likely token's weight is 1
  std::vector<double> cumulative;   // running sums of `weights`, added in order
};

// Chooses tokens one after another. At temperature 0 no random number is drawn; above 0 every call
// draws exactly one, and a call that throws draws none.
class Sampler {
 public:
  // Throws Error where a setting is out of its range.
  explicit Sampler(const molkv_sampling& sampling);

  void Reset() { generator_ = SplitMix64(sampling_.seed); }

  // Throws Error where a logit is NaN or +inf, or all are -inf.
  int64_t Sample(const float* logits, size_t count);

  // Selects and weighs the tokens of one draw; the temperature must be above 0. The result is valid
  // until the next call.
  const Candidates& Select(const float* logits, size_t count);

 private:
  // Fills `block_maxima_`, refuses what cannot be sampled, and returns the key of the largest
  // logit.
  int32_t Scan(const float* logits, size_t count);
  // The first token with that key.
  size_t Greedy(const float* logits, size_t count, int32_t largest) const;
  void Order(const float* logits, size_t count);

  molkv_sampling sampling_;
  SplitMix64 generator_;
  // Kept from call to call, so that a call allocates nothing.
  std::vector<int32_t> block_maxima_;
  std::vector<int32_t> bounds_;
  std::vector<uint64_t> keys_;
  Candidates candidates_;
};

}  // namespace molkv

#endif  // MOLKV_SRC_SAMPLER_H_
