#include "sampler.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <limits>
#include <sstream>
#include <string>
#include <vector>

#include "error.h"
#include "json.h"
#include "random_generator.h"

namespace molkv {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

molkv_sampling Greedy() { return {sizeof(molkv_sampling), 0, 0.0, 1.0, 0.0, 0}; }

std::string ReadText(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  std::ostringstream content;
  content << file.rdbuf();
  return content.str();
}

template <typename To, typename From>
To BitCast(From from) {
  static_assert(sizeof(To) == sizeof(From));
  To to;
  std::memcpy(&to, &from, sizeof(to));
  return to;
}

// The vectors that every language's sampler must reproduce (tests/golden/make_sampling.py).
class GoldenTest : public testing::Test {
 protected:
  GoldenTest()
      : document_(ReadText(std::filesystem::path(__FILE__).parent_path() / ".." / ".." / "tests" /
                           "golden" / "sampling.json")) {}

  static JsonValue Get(const JsonValue& object, const char* name) {
    JsonValue value = object;
    EXPECT_TRUE(object.Find(name, &value)) << name;
    return value;
  }

  JsonValue Section(const char* name) const { return Get(document_.Root(), name); }

  static std::vector<JsonValue> Items(const JsonValue& array) {
    std::vector<JsonValue> items;
    JsonValue item = array.First();
    for (size_t index = 0; index < array.size(); ++index, item = item.Next()) {
      items.push_back(item);
    }
    return items;
  }

  static uint64_t Bits(const JsonValue& value) {
    return std::strtoull(std::string(value.text()).c_str(), nullptr, 16);
  }

  static double Number(const JsonValue& value) {
    return std::strtod(std::string(value.text()).c_str(), nullptr);
  }

  std::vector<float> Logits(std::string_view name) const {
    const JsonValue recipe = Get(Section("logits"), std::string(name).c_str());
    std::vector<float> logits;
    JsonValue bits = recipe;
    if (recipe.Find("bits", &bits)) {
      for (const JsonValue& item : Items(bits)) {
        logits.push_back(BitCast<float>(static_cast<uint32_t>(Bits(item))));
      }
      return logits;
    }
    // As `formula_logits` there: the integers' top bits, centred, in steps of a power of two.
    SplitMix64 generator(static_cast<uint64_t>(Number(Get(recipe, "seed"))));
    const int top_bits = static_cast<int>(Number(Get(recipe, "top_bits")));
    const int step_exponent = static_cast<int>(Number(Get(recipe, "step_exponent")));
    const double half = std::ldexp(1.0, top_bits - 1);
    for (double index = 0; index < Number(Get(recipe, "count")); ++index) {
      const double top = static_cast<double>(generator.NextInteger() >> (64 - top_bits));
      logits.push_back(static_cast<float>(std::ldexp(top - half, step_exponent)));
    }
    return logits;
  }

  JsonDocument document_;
};

TEST_F(GoldenTest, RandomNumbers) {
  for (const JsonValue& vector : Items(Section("uniforms"))) {
    SplitMix64 integers(Bits(Get(vector, "seed")));
    SplitMix64 uniforms(Bits(Get(vector, "seed")));
    for (const JsonValue& integer : Items(Get(vector, "integers"))) {
      EXPECT_EQ(integers.NextInteger(), Bits(integer));
    }
    for (const JsonValue& uniform : Items(Get(vector, "uniforms"))) {
      EXPECT_EQ(BitCast<uint64_t>(uniforms.NextUniform()), Bits(uniform));
    }
  }
}

TEST_F(GoldenTest, Exponential) {
  for (const JsonValue& pair : Items(Section("exponential"))) {
    const std::vector<JsonValue> both = Items(pair);
    EXPECT_EQ(BitCast<uint64_t>(Exponential(BitCast<double>(Bits(both[0])))), Bits(both[1]))
        << both[0].text();
  }
}

TEST_F(GoldenTest, Sampling) {
  size_t cases = 0;
  for (const JsonValue& golden : Items(Section("sampling"))) {
    const std::vector<float> logits = Logits(Get(golden, "logits").text());
    molkv_sampling sampling = Greedy();
    sampling.temperature = Number(Get(golden, "temperature"));
    sampling.top_k = static_cast<uint32_t>(Number(Get(golden, "top_k")));
    sampling.top_p = Number(Get(golden, "top_p"));
    sampling.min_p = Number(Get(golden, "min_p"));
    sampling.seed = Bits(Get(golden, "seed"));
    Sampler sampler(sampling);
    if (sampling.temperature > 0) {
      const Candidates& candidates = sampler.Select(logits.data(), logits.size());
      EXPECT_EQ(candidates.token_ids.size(), Number(Get(golden, "kept")));
      EXPECT_EQ(BitCast<uint64_t>(candidates.cumulative.back()), Bits(Get(golden, "total")));
      size_t place = 0;
      for (const JsonValue& weight : Items(Get(golden, "first_weights"))) {
        ASSERT_LT(place, candidates.weights.size());
        EXPECT_EQ(BitCast<uint64_t>(candidates.weights[place++]), Bits(weight));
      }
    }
    for (int round = 0; round < 2; ++round) {
      for (const JsonValue& token : Items(Get(golden, "tokens"))) {
        EXPECT_EQ(sampler.Sample(logits.data(), logits.size()), Number(token));
      }
      sampler.Reset();
    }
    ++cases;
  }
  EXPECT_GT(cases, 20u);
}

TEST(Sampler, GreedyTakesTheFirstOfEqualOnes) {
  Sampler sampler(Greedy());
  for (const size_t size : {1, 2, 63, 64, 65, 130, 1000}) {
    for (size_t best = 0; best < size; best += 1 + size / 17) {
      std::vector<float> logits(size, -3.0f);
      std::fill(logits.begin() + best, logits.end(), -0.0f);
      logits.back() = 0.0f;
      EXPECT_EQ(sampler.Sample(logits.data(), size), static_cast<int64_t>(best));
    }
  }
}

std::string Refusal(const std::vector<float>& logits, double temperature) {
  molkv_sampling sampling = Greedy();
  sampling.temperature = temperature;
  try {
    Sampler(sampling).Sample(logits.data(), logits.size());
  } catch (const Error& error) {
    EXPECT_EQ(error.status(), MOLKV_INVALID_ARGUMENT);
    return error.what();
  }
  return "";
}

TEST(Sampler, RefusesWhatIsNoNumber) {
  const float positive = std::numeric_limits<float>::quiet_NaN();
  for (const double temperature : {0.0, 1.0}) {
    for (const float broken : {positive, std::copysign(positive, -1.0f), kInfinity}) {
      for (const size_t place : {0, 63, 64, 99}) {
        std::vector<float> logits(100, -kInfinity);
        logits[place] = broken;
        const std::string message = Refusal(logits, temperature);
        const std::string start = "1 of 100 logits are NaN or +inf, the first is token " +
                                  std::to_string(place) + " with ";
        EXPECT_EQ(message.substr(0, start.size()), start);
      }
    }
    EXPECT_EQ(Refusal(std::vector<float>(3, -kInfinity), temperature),
              "all 3 logits are -inf, so no token is allowed (leave at least one token unmasked)");
    EXPECT_EQ(Refusal({-kInfinity, 0.0f}, temperature), "");
  }
}

TEST(Sampler, ARefusedCallDrawsNoNumber) {
  molkv_sampling sampling = Greedy();
  sampling.temperature = 1.0;
  Sampler sampler(sampling);
  Sampler untouched(sampling);
  const std::vector<float> logits(50, 0.0f);
  const std::vector<float> broken(50, kInfinity);
  EXPECT_THROW(sampler.Sample(broken.data(), broken.size()), Error);
  for (int draw = 0; draw < 20; ++draw) {
    EXPECT_EQ(sampler.Sample(logits.data(), 50), untouched.Sample(logits.data(), 50));
  }
}

TEST(Sampler, NamesTheSettingThatCannotWork) {
  molkv_sampling sampling = Greedy();
  sampling.top_p = 1.5;
  molkv_sampler* sampler = nullptr;
  molkv_error error;
  EXPECT_EQ(molkv_sampler_create(&sampling, &sampler, &error), MOLKV_INVALID_ARGUMENT);
  EXPECT_STREQ(error.message,
               "top_p is 1.5, and must be a number above 0 and at most 1 (use 1 to keep every "
               "token, or a value such as 0.95)");
  EXPECT_EQ(sampler, nullptr);
  EXPECT_EQ(molkv_sampler_create(&sampling, &sampler, nullptr), MOLKV_INVALID_ARGUMENT);
}

}  // namespace
}  // namespace molkv
