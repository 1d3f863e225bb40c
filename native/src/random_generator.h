// SplitMix64, the small random generator that every molkv runtime shares (docs/sampling.md).

#ifndef MOLKV_SRC_RANDOM_GENERATOR_H_
#define MOLKV_SRC_RANDOM_GENERATOR_H_

#include <cstdint>

namespace molkv {

// A stream of random 64-bit integers and of uniform doubles.
class SplitMix64 {
 public:
  explicit SplitMix64(uint64_t seed) : state_(seed) {}

  uint64_t NextInteger() {
    state_ += 0x9E3779B97F4A7C15u;
    uint64_t mixed = state_;
    mixed = (mixed ^ (mixed >> 30)) * 0xBF58476D1CE4E5B9u;
    mixed = (mixed ^ (mixed >> 27)) * 0x94D049BB133111EBu;
    return mixed ^ (mixed >> 31);
  }

  // The next double in [0, 1), a multiple of 2^-53; it uses up one integer.
  double NextUniform() {
    // A double holds 53 bits, so the 11 lowest of the 64 are dropped and the product is exact.
    return static_cast<double>(NextInteger() >> 11) * 0x1p-53;
  }

 private:
  uint64_t state_;
};

}  // namespace molkv

#endif  // MOLKV_SRC_RANDOM_GENERATOR_H_
