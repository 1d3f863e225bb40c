#include "sampler.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <functional>
#include <iterator>
#include <limits>
#include <string>

#include "error.h"

namespace molkv {
namespace {

// Below this the weight is exactly 0. Above it no result is subnormal, so hardware that flushes
// subnormal numbers to zero gives the same bits.
constexpr double kExponentialCutoff = -700.0;
constexpr double kLog2E = 0x1.71547652b82fep+0;
// ln 2 in two parts. The low 21 bits of the high part are zero, so k * kLn2High is exact.
constexpr double kLn2High = 0x1.62e42fee00000p-1;
constexpr double kLn2Low = 0x1.a39ef35793c76p-33;
// 1/n! for n = 13..0, each the nearest double.
constexpr double kCoefficients[] = {
    0x1.6124613a86d09p-33, 0x1.1eed8eff8d898p-29, 0x1.ae64567f544e4p-26, 0x1.27e4fb7789f5cp-22,
    0x1.71de3a556c734p-19, 0x1.a01a01a01a01ap-16, 0x1.a01a01a01a01ap-13, 0x1.6c16c16c16c17p-10,
    0x1.1111111111111p-7,  0x1.5555555555555p-5,  0x1.5555555555555p-3,  0x1.0000000000000p-1,
    0x1.0000000000000p+0,  0x1.0000000000000p+0,
};

// Logits are compared as signed integers in the order of their values, which compilers turn into
// vector instructions where a maximum of floats, with its NaN, stays a loop of single steps.
constexpr int32_t kMagnitudeBits = 0x7FFFFFFF;
constexpr int32_t kPositiveInfinityKey = 0x7F800000;
constexpr int32_t kNegativeInfinityKey = INT32_MIN + 0x7FFFFF;

// One maximum is kept for so many logits. More would make the bound of the best ones looser, fewer
// would make it slower to find.
constexpr size_t kBlockSize = 64;

// A logit's place in the order of values; -0 and +0 have the same.
inline int32_t OrderedKey(float logit) {
  int32_t bits;
  std::memcpy(&bits, &logit, sizeof(bits));
  const int32_t key = bits ^ ((bits >> 31) & kMagnitudeBits);
  return key + (key == -1);
}

// The logit of a key, +0 for both zeros.
float Logit(int32_t key) {
  const int32_t bits = key ^ ((key >> 31) & kMagnitudeBits);
  float logit;
  std::memcpy(&logit, &bits, sizeof(logit));
  return logit;
}

std::string Text(double value) {
  char text[40];
  std::snprintf(text, sizeof(text), "%.17g", value);
  return text;
}

[[noreturn]] void Refuse(const char* field, double value, const char* rule, const char* fix) {
  throw Error(MOLKV_INVALID_ARGUMENT, std::string(field) + " is " + Text(value) + ", and must be " +
                                          rule + " (" + fix + ")");
}

void Validate(const molkv_sampling& sampling) {
  // Written so that NaN fails each test.
  if (!(sampling.temperature >= 0 && sampling.temperature <= std::numeric_limits<double>::max())) {
    Refuse("temperature", sampling.temperature, "a finite number of at least 0",
           "use 0 for greedy, or a value such as 0.8");
  }
  if (!(sampling.top_p > 0 && sampling.top_p <= 1)) {
    Refuse("top_p", sampling.top_p, "a number above 0 and at most 1",
           "use 1 to keep every token, or a value such as 0.95");
  }
  if (!(sampling.min_p >= 0 && sampling.min_p <= 1)) {
    Refuse("min_p", sampling.min_p, "a number from 0 to 1",
           "use 0 to keep every token, or a value such as 0.05");
  }
}

[[noreturn]] void RefuseBrokenLogits(const float* logits, size_t count) {
  size_t broken = 0;
  size_t first = 0;
  for (size_t index = count; index-- > 0;) {
    if (std::isnan(logits[index]) || logits[index] == std::numeric_limits<float>::infinity()) {
      ++broken;
      first = index;
    }
  }
  throw Error(MOLKV_INVALID_ARGUMENT,
              std::to_string(broken) + " of " + std::to_string(count) +
                  " logits are NaN or +inf, the first is token " + std::to_string(first) +
                  " with " + (std::isnan(logits[first]) ? "nan" : "inf") +
                  " (the model's weights or its graph are damaged; run `molkv verify` on the "
                  "bundle)");
}

}  // namespace

double Exponential(double x) {
  if (x < kExponentialCutoff) {
    return 0.0;
  }
  const double k = std::floor(x * kLog2E + 0.5);
  const double remainder = (x - k * kLn2High) - k * kLn2Low;
  double polynomial = kCoefficients[0];
  for (size_t index = 1; index < std::size(kCoefficients); ++index) {
    polynomial = polynomial * remainder + kCoefficients[index];
  }
  // 2^k is a normal number, as is the product, so the multiplication is exact.
  const uint64_t bits = static_cast<uint64_t>(static_cast<int64_t>(k) + 1023) << 52;
  double power;
  std::memcpy(&power, &bits, sizeof(power));
  return polynomial * power;
}

Sampler::Sampler(const molkv_sampling& sampling) : sampling_(sampling), generator_(sampling.seed) {
  Validate(sampling);
}

int64_t Sampler::Sample(const float* logits, size_t count) {
  if (sampling_.temperature == 0) {
    return static_cast<int64_t>(Greedy(logits, count, Scan(logits, count)));
  }
  const Candidates& candidates = Select(logits, count);
  const std::vector<double>& sums = candidates.cumulative;
  const double target = generator_.NextUniform() * sums.back();
  // The first running sum above the target. A token of weight 0 is never it: its running sum is its
  // predecessor's. There always is one, for the rounded product is below the total.
  const auto above = std::upper_bound(sums.begin(), sums.end(), target);
  const size_t index = std::min<size_t>(above - sums.begin(), sums.size() - 1);
  return candidates.token_ids[index];
}

const Candidates& Sampler::Select(const float* logits, size_t count) {
  const double largest = Logit(Scan(logits, count));
  Order(logits, count);

  std::vector<uint32_t>& token_ids = candidates_.token_ids;
  std::vector<double>& weights = candidates_.weights;
  std::vector<double>& cumulative = candidates_.cumulative;
  weights.resize(token_ids.size());
  for (size_t index = 0; index < token_ids.size(); ++index) {
    const double difference = static_cast<double>(logits[token_ids[index]]) - largest;
    weights[index] = Exponential(difference / sampling_.temperature);
  }
  const auto add_up = [&] {
    cumulative.resize(weights.size());
    double sum = 0.0;
    for (size_t index = 0; index < weights.size(); ++index) {
      sum += weights[index];
      cumulative[index] = sum;
    }
  };
  add_up();

  if (sampling_.top_p < 1) {
    const double enough = sampling_.top_p * cumulative.back();
    const auto reached = std::lower_bound(cumulative.begin(), cumulative.end(), enough);
    const size_t kept = std::min<size_t>(reached - cumulative.begin() + 1, cumulative.size());
    token_ids.resize(kept);
    weights.resize(kept);
    cumulative.resize(kept);
  }
  if (sampling_.min_p > 0) {
    // The polynomial is not monotonous in its last bit, so each weight is compared.
    size_t kept = 0;
    for (size_t index = 0; index < weights.size(); ++index) {
      if (weights[index] >= sampling_.min_p) {
        token_ids[kept] = token_ids[index];
        weights[kept] = weights[index];
        ++kept;
      }
    }
    token_ids.resize(kept);
    weights.resize(kept);
    add_up();
  }
  return candidates_;
}

int32_t Sampler::Scan(const float* logits, size_t count) {
  block_maxima_.resize((count + kBlockSize - 1) / kBlockSize);
  int32_t smallest = INT32_MAX;
  int32_t largest = INT32_MIN;
  for (size_t block = 0; block < block_maxima_.size(); ++block) {
    const float* first = logits + block * kBlockSize;
    const size_t length = std::min(kBlockSize, count - block * kBlockSize);
    int32_t block_maximum = INT32_MIN;
    for (size_t index = 0; index < length; ++index) {
      const int32_t key = OrderedKey(first[index]);
      block_maximum = std::max(block_maximum, key);
      smallest = std::min(smallest, key);
    }
    block_maxima_[block] = block_maximum;
    largest = std::max(largest, block_maximum);
  }
  // In this order, NaN lies above +inf or below -inf, by its sign.
  if (largest >= kPositiveInfinityKey || smallest < kNegativeInfinityKey) {
    RefuseBrokenLogits(logits, count);
  }
  if (largest == kNegativeInfinityKey) {
    throw Error(MOLKV_INVALID_ARGUMENT, "all " + std::to_string(count) +
                                            " logits are -inf, so no token is allowed (leave at "
                                            "least one token unmasked)");
  }
  return largest;
}

size_t Sampler::Greedy(const float* logits, size_t count, int32_t largest) const {
  const auto block = std::find(block_maxima_.begin(), block_maxima_.end(), largest);
  const float* first = logits + (block - block_maxima_.begin()) * kBlockSize;
  const auto is_largest = [&](float logit) { return OrderedKey(logit) == largest; };
  return std::find_if(first, logits + count, is_largest) - logits;
}

// Fills the candidates' ids: those of the `top_k` largest logits, in order.
void Sampler::Order(const float* logits, size_t count) {
  const size_t wanted = sampling_.top_k == 0 ? count : std::min<size_t>(sampling_.top_k, count);
  int32_t bound = INT32_MIN;
  if (wanted <= block_maxima_.size()) {
    // At least `wanted` blocks, and so `wanted` logits, reach the wanted-th largest block maximum.
    // So the wanted-th largest logit does too, and nothing below this bound is needed.
    bounds_ = block_maxima_;
    const auto place = bounds_.begin() + (wanted - 1);
    std::nth_element(bounds_.begin(), place, bounds_.end(), std::greater<int32_t>());
    bound = *place;
  }

  // A key holds the logit's order, backwards, above the id. No two are equal, so unstable sorts
  // give what a stable sort by logit would.
  keys_.clear();
  for (size_t block = 0; block < block_maxima_.size(); ++block) {
    if (block_maxima_[block] < bound) {
      continue;
    }
    const size_t end = std::min(count, (block + 1) * kBlockSize);
    for (size_t index = block * kBlockSize; index < end; ++index) {
      const int32_t key = OrderedKey(logits[index]);
      if (key >= bound) {
        const uint32_t descending =
            static_cast<uint32_t>(kMagnitudeBits) - static_cast<uint32_t>(key);
        keys_.push_back(static_cast<uint64_t>(descending) << 32 | index);
      }
    }
  }
  if (wanted < keys_.size()) {
    std::nth_element(keys_.begin(), keys_.begin() + (wanted - 1), keys_.end());
    keys_.resize(wanted);
  }
  std::sort(keys_.begin(), keys_.end());

  candidates_.token_ids.resize(keys_.size());
  std::transform(keys_.begin(), keys_.end(), candidates_.token_ids.begin(),
                 [](uint64_t key) { return static_cast<uint32_t>(key); });
}

}  // namespace molkv
