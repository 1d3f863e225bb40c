#include "attention.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <string>
#include <thread>

#include "attention_case.h"
#include "attention_half.h"

namespace molkv {
namespace {

using testing::AvailableKernels;
using testing::Case;
using testing::Difference;
using testing::GuardedMemory;
using testing::Shape;

// The bound that the kernels state: of the largest output, for scores of a few units.
constexpr float kBound = 2e-6f;

class Kernels : public ::testing::TestWithParam<molkv_kernel> {};

INSTANTIATE_TEST_SUITE_P(Attention, Kernels, ::testing::ValuesIn(AvailableKernels()),
                         [](const auto& info) {
                           std::string name = molkv_kernel_name(info.param);
                           name.erase(std::remove(name.begin(), name.end(), '-'), name.end());
                           return name;
                         });

TEST_P(Kernels, ComputeATinyCaseByHand) {
  // One head; two rows of one expert. Scores: row 0 is 2 * 3 * 0.5 / sqrt(1) + ln 2 - 3 = ln 2,
  // row 1 is 2 * -1 * 0.5 + 1 = 0. So the weights are 2/3 and 1/3.
  const float query[] = {2};
  const int8_t keys[] = {3, -1};
  const float key_scales[] = {0.5f, 0.5f};
  const int8_t values[] = {30, -60, 90, 6};
  const float value_scales[] = {0.1f, 1};
  const float age_bias[] = {1, 0.69314718f - 3};  // the newest row's first
  molkv_attention_inputs inputs = {};
  inputs.struct_size = sizeof(inputs);
  inputs.kernel = GetParam();
  inputs.tokens = inputs.experts = inputs.heads = inputs.key_size = 1;
  inputs.rows = inputs.value_size = inputs.window = 2;
  inputs.key_dtype = inputs.value_dtype = MOLKV_INT8;
  inputs.query = query;
  inputs.keys = keys;
  inputs.key_scales = key_scales;
  inputs.values = values;
  inputs.value_scales = value_scales;
  inputs.age_bias = age_bias;
  float output[2] = {};
  ASSERT_EQ(molkv_attention(&inputs, output, nullptr, nullptr, nullptr, nullptr), MOLKV_OK);
  EXPECT_NEAR(output[0], 2.0f / 3 * 3 + 1.0f / 3 * 90, 1e-5);
  EXPECT_NEAR(output[1], 2.0f / 3 * -6 + 1.0f / 3 * 6, 1e-5);
}

TEST_P(Kernels, AgreeWithScalarOnAllSizesAndTypes) {
  const Shape shapes[] = {
      {1, 64, 4, 4, 64, 768, 64},       // decode at a usual size
      {12, 75, 4, 4, 64, 96, 64},       // prefill
      {1, 1, 1, 1, 1, 1, 1},            // the least of all
      {7, 19, 3, 2, 5, 14, 8},          // no size a multiple of a vector's
      {9, 40, 5, 3, 17, 99, 13},        //
      {8, 8, 2, 1, 33, 70, 64},         // a window longer than the rows
      {5, 60, 2, 2, 20, 36, 9},         // more rows than any token attends
      {6, 6, 4, 1, 4, 100, 1},          // MoLE's: its own row only
      {4, 30, 3, 2, 16, 130, 20, 9},    // padding in front
      {4, 30, 3, 2, 16, 130, 20, 26},   // all rows of other tokens are padding
      {3, 70, 1, 4, 48, 64, 60},        //
      {128, 300, 2, 1, 8, 16, 200, 5},  //
      {2, 9, 37, 2, 7, 6, 4, -3},       // a negative start is no padding
      {1, 24, 2, 1, 1000, 1000, 24},    // wide vectors
  };
  for (Shape shape : shapes) {
    for (int variant = 0; variant < 16; ++variant) {
      shape.key_dtype = variant & 1 ? MOLKV_INT8 : MOLKV_FLOAT16;
      shape.value_dtype = variant & 2 ? MOLKV_INT8 : MOLKV_FLOAT16;
      shape.key_scales = variant & 4;
      shape.value_scales = variant & 8;
      Case example(shape, static_cast<uint32_t>(variant));
      const std::vector<float> expected = example.Run(MOLKV_KERNEL_SCALAR);
      EXPECT_LT(Difference(example.Run(GetParam()), expected), kBound) << shape;
    }
  }
}

TEST_P(Kernels, AgreeWithScalarOnInt4Values) {
  const Shape shapes[] = {
      {1, 64, 4, 4, 64, 768, 64},     // decode at a usual size
      {12, 75, 4, 4, 64, 128, 64},    // prefill, the least part of a head
      {1, 1, 1, 1, 1, 32, 1},         // the least of all
      {9, 40, 5, 3, 17, 96, 13},      //
      {4, 30, 3, 2, 16, 192, 20, 9},  // padding in front
      {6, 6, 4, 1, 4, 96, 1},         // MoLE's: its own row only
  };
  for (Shape shape : shapes) {
    shape.value_dtype = MOLKV_INT4;
    for (uint32_t key_dtype : {MOLKV_INT8, MOLKV_FLOAT16}) {
      shape.key_dtype = key_dtype;
      Case example(shape);
      const std::vector<float> expected = example.Run(MOLKV_KERNEL_SCALAR);
      EXPECT_LT(Difference(example.Run(GetParam()), expected), kBound) << shape;
    }
  }
}

TEST_P(Kernels, TakeTheFirstInt4ElementFromTheLowBits) {
  // One row and one expert: the output is its value.
  Case example({1, 1, 1, 1, 4, 64, 1, 0, MOLKV_INT8, MOLKV_INT4});
  uint8_t* bytes = static_cast<uint8_t*>(const_cast<void*>(example.inputs().values));
  uint16_t* scales = static_cast<uint16_t*>(const_cast<void*>(example.inputs().value_scales));
  for (int i = 0; i < 32; ++i) bytes[i] = static_cast<uint8_t>(i % 16 | (15 - i % 16) << 4);
  scales[0] = testing::HalfOf(0.5f);
  scales[1] = testing::HalfOf(-1.0f);
  const std::vector<float> output = example.Run(GetParam());
  for (int i = 0; i < 64; ++i) {
    const int bits = i % 2 == 0 ? i / 2 % 16 : 15 - i / 2 % 16;
    const int element = bits < 8 ? bits : bits - 16;
    EXPECT_EQ(output[i], static_cast<float>(element) * (i < 32 ? 0.5f : -1.0f)) << i;
  }
}

TEST_P(Kernels, TellAWrongBias) {
  Case example({5, 20, 3, 2, 16, 32, 8});
  const std::vector<float> expected = example.Run(MOLKV_KERNEL_SCALAR);
  float* bias = const_cast<float*>(example.inputs().age_bias);
  std::swap(bias[0], bias[7]);
  EXPECT_GT(Difference(example.Run(GetParam()), expected), 100 * kBound);
}

TEST_P(Kernels, ReadNoRowThatNobodyAttends) {
  // Rows 0 to 2 are padding, and rows 3 and 4 too old.
  Shape shape = {5, 19, 3, 2, 9, 20, 10, 3, MOLKV_FLOAT16, MOLKV_FLOAT16};
  Case example(shape);
  const std::vector<float> expected = example.Run(GetParam());
  constexpr uint16_t kNan = 0x7e00;
  const molkv_attention_inputs& inputs = example.inputs();
  const size_t pairs = 5 * shape.experts;
  std::fill_n(static_cast<uint16_t*>(const_cast<void*>(inputs.keys)), pairs * 2 * 9, kNan);
  std::fill_n(static_cast<uint16_t*>(const_cast<void*>(inputs.values)), pairs * 20, kNan);
  std::fill_n(const_cast<float*>(inputs.key_scales), pairs, NAN);
  std::fill_n(static_cast<float*>(const_cast<void*>(inputs.value_scales)), pairs, NAN);
  EXPECT_EQ(example.Run(GetParam()), expected);
}

TEST_P(Kernels, GiveTheSameBitsHoweverTokensAreCutIntoCalls) {
  for (uint32_t dtype : {MOLKV_INT8, MOLKV_FLOAT16, MOLKV_INT4}) {
    const bool packed = dtype == MOLKV_INT4;
    const uint32_t key_dtype = packed ? uint32_t{MOLKV_INT8} : dtype;
    const uint32_t value_size = packed ? 64 : 38;
    const Shape shape = {23, 50, 3, 2, 20, value_size, 16, 25, key_dtype, dtype};
    Case example(shape);
    const std::vector<float> whole = example.Run(GetParam());
    molkv_attention_inputs inputs = example.inputs();
    for (uint32_t count : {1, 3, 4, 7}) {
      std::vector<float> parts(whole.size());
      for (uint32_t token = 0; token < shape.tokens; token += count) {
        inputs.tokens = std::min(count, shape.tokens - token);
        inputs.rows = shape.rows - shape.tokens + token + inputs.tokens;
        inputs.query = example.inputs().query + token * 2 * 20;
        ASSERT_EQ(molkv_attention(&inputs, parts.data() + token * shape.value_size, nullptr,
                                  nullptr, nullptr, nullptr),
                  MOLKV_OK);
      }
      EXPECT_EQ(parts, whole) << count;
    }
  }
}

// Runs every part in a thread of its own, the last one first; counts the parts.
void RunInThreads(void* pool, size_t count, void (*work)(void*, size_t, size_t), void* context) {
  *static_cast<size_t*>(pool) += count;
  std::vector<std::thread> threads;
  for (size_t i = count; i-- > 0;) threads.emplace_back(work, context, i, i + 1);
  for (std::thread& thread : threads) thread.join();
}

TEST_P(Kernels, GiveTheSameBitsWithThreads) {
  const Shape shapes[] = {
      {150, 200, 4, 4, 16, 64, 60}, {13, 190, 4, 4, 32, 132, 180}, {1, 600, 4, 5, 64, 640, 600}};
  for (const Shape& shape : shapes) {
    Case example(shape);
    size_t parts = 0;
    EXPECT_EQ(example.Run(GetParam(), RunInThreads, &parts), example.Run(GetParam())) << shape;
    EXPECT_GE(parts, 5u);
  }
}

TEST_P(Kernels, UseOnlyTheScratchMemoryThatTheyAskFor) {
  for (const Shape& shape : {Shape{9, 40, 5, 3, 17, 99, 13}, Shape{13, 190, 4, 4, 32, 132, 180}}) {
    Case example(shape);
    const std::vector<float> expected = example.Run(GetParam());
    const size_t size = molkv_attention_scratch_bytes(&example.inputs());
    ASSERT_GT(size, 0u);
    GuardedMemory scratch(size);  // at an odd address where the size is odd
    std::memset(scratch.As<char>(), 0xff, size);
    std::vector<float> output(expected.size());
    size_t parts = 0;
    ASSERT_EQ(molkv_attention(&example.inputs(), output.data(), scratch.As<void>(), RunInThreads,
                              &parts, nullptr),
              MOLKV_OK);
    EXPECT_EQ(output, expected);
  }
}

TEST_P(Kernels, ConvertEveryHalf) {
  // One row and one expert: its weight is 1, so the output is the value.
  Shape shape = {1, 1, 1, 1, 1, 65536, 1, 0, MOLKV_INT8, MOLKV_FLOAT16, true, false};
  Case example(shape);
  uint16_t* values = static_cast<uint16_t*>(const_cast<void*>(example.inputs().values));
  for (uint32_t bits = 0; bits < 65536; ++bits) values[bits] = static_cast<uint16_t>(bits);
  const std::vector<float> output = example.Run(GetParam());
  for (uint32_t bits = 0; bits < 65536; ++bits) {
    if ((bits & 0x7c00) != 0x7c00) {
      ASSERT_EQ(output[bits], ToFloat(Half{values[bits]})) << bits;
    } else {
      ASSERT_FALSE(std::isfinite(output[bits])) << bits;
    }
  }
}

TEST_P(Kernels, TakeExponentialsWithinTwoUnitsInTheLastPlace) {
  std::vector<float> values, results;
  for (float value = 0; value > -87.3f; value -= 1.37e-4f) values.push_back(value);
  results.resize(values.size());
  const AttentionKernel& kernel = *FindAttentionKernel(GetParam());
  kernel.exponentials(values.data(), results.data(), values.size());
  for (size_t i = 0; i < values.size(); ++i) {
    const double exact = std::exp(static_cast<double>(values[i]));
    int exponent;
    std::frexp(exact, &exponent);
    ASSERT_LT(std::fabs(results[i] - exact), 2 * std::ldexp(1.0, exponent - 24)) << values[i];
  }
  const float extremes[] = {0, -1000, -INFINITY, NAN};
  float of_extremes[4];
  kernel.exponentials(extremes, of_extremes, 4);
  EXPECT_EQ(of_extremes[0], 1);
  EXPECT_EQ(of_extremes[1], 0);
  EXPECT_EQ(of_extremes[2], 0);
  EXPECT_TRUE(std::isnan(of_extremes[3]));
}

TEST(AttentionHalf, AgreesWithKnownNumbers) {
  EXPECT_EQ(ToFloat(Half{0x0000}), 0.0f);
  EXPECT_TRUE(std::signbit(ToFloat(Half{0x8000})));
  EXPECT_EQ(ToFloat(Half{0x0001}), 0x1p-24f);
  EXPECT_EQ(ToFloat(Half{0x83ff}), -0x3ffp-24f);
  EXPECT_EQ(ToFloat(Half{0x0400}), 0x1p-14f);
  EXPECT_EQ(ToFloat(Half{0x3c00}), 1.0f);
  EXPECT_EQ(ToFloat(Half{0xc100}), -2.5f);
  EXPECT_EQ(ToFloat(Half{0x7bff}), 65504.0f);
  EXPECT_EQ(ToFloat(Half{0xfc00}), -INFINITY);
  EXPECT_TRUE(std::isnan(ToFloat(Half{0x7e01})));
}

TEST(AttentionKernels, HaveNamesAndAreChosenByProcessor) {
  EXPECT_TRUE(molkv_kernel_available(MOLKV_KERNEL_BEST));
  EXPECT_TRUE(molkv_kernel_available(MOLKV_KERNEL_SCALAR));
  EXPECT_FALSE(molkv_kernel_available(static_cast<molkv_kernel>(99)));
  EXPECT_STREQ(molkv_kernel_name(MOLKV_KERNEL_SCALAR), "scalar");
  EXPECT_STREQ(molkv_kernel_name(MOLKV_KERNEL_AVX2), "avx2");
  EXPECT_STREQ(molkv_kernel_name(MOLKV_KERNEL_AVX512), "avx512");
  EXPECT_STREQ(molkv_kernel_name(MOLKV_KERNEL_NEON), "neon");
  EXPECT_STREQ(molkv_kernel_name(MOLKV_KERNEL_NEON_DOTPROD), "neon-dotprod");
  EXPECT_STREQ(molkv_kernel_name(static_cast<molkv_kernel>(99)), "unknown");
  EXPECT_EQ(molkv_kernel_available(MOLKV_KERNEL_AVX2), ProcessorHasAvx2());
  EXPECT_EQ(molkv_kernel_available(MOLKV_KERNEL_AVX512), ProcessorHasAvx512());
  EXPECT_EQ(molkv_kernel_available(MOLKV_KERNEL_NEON_DOTPROD), ProcessorHasDotprod());
#if defined(__aarch64__)
  EXPECT_TRUE(molkv_kernel_available(MOLKV_KERNEL_NEON));
#else
  EXPECT_FALSE(molkv_kernel_available(MOLKV_KERNEL_NEON));
#endif
  for (const AttentionKernel* kernel : {&kAttentionScalar, FindAttentionKernel(0)}) {
    EXPECT_TRUE(kernel->supported());
  }
  EXPECT_STREQ(molkv_kernel_name(MOLKV_KERNEL_BEST), FindAttentionKernel(0)->name);
}

TEST(AttentionArguments, AKernelThatTheProcessorLacksIsUnsupported) {
  for (uint32_t kernel = MOLKV_KERNEL_SCALAR; kernel < 8; ++kernel) {
    if (molkv_kernel_available(static_cast<molkv_kernel>(kernel))) continue;
    Case example({1, 4, 2, 1, 4, 8, 4});
    example.inputs().kernel = kernel;
    float output[8] = {7};
    molkv_error error;
    EXPECT_EQ(molkv_attention(&example.inputs(), output, nullptr, nullptr, nullptr, &error),
              MOLKV_UNSUPPORTED);
    EXPECT_NE(std::string(error.message).find("MOLKV_KERNEL_BEST"), std::string::npos);
    EXPECT_EQ(output[0], 7);
    EXPECT_EQ(molkv_attention_scratch_bytes(&example.inputs()), 0u);
  }
}

TEST(AttentionArguments, WrongOnesAreRefusedByName) {
  struct Wrong {
    const char* named;
    void (*make)(molkv_attention_inputs*);
    molkv_status status = MOLKV_INVALID_ARGUMENT;
  };
  const Wrong all[] = {
      {"struct_size", [](auto* inputs) { inputs->struct_size = 8; }},
      {"tokens", [](auto* inputs) { inputs->tokens = 0; }},
      {"tokens", [](auto* inputs) { inputs->tokens = inputs->rows + 1; }},
      {"rows", [](auto* inputs) { inputs->rows = 0; }},
      {"experts", [](auto* inputs) { inputs->experts = 0; }},
      {"heads", [](auto* inputs) { inputs->heads = 0; }},
      {"value_size", [](auto* inputs) { inputs->heads = 3; }},
      {"key_size", [](auto* inputs) { inputs->key_size = 0; }},
      {"key_size", [](auto* inputs) { inputs->key_size = 65537; }},
      {"value_size", [](auto* inputs) { inputs->value_size = 0; }},
      {"window", [](auto* inputs) { inputs->window = 0; }},
      {"start", [](auto* inputs) { inputs->start = 6; }},
      {"start", [](auto* inputs) { inputs->start = INT64_MAX; }},
      {"key_dtype", [](auto* inputs) { inputs->key_dtype = MOLKV_FLOAT32; }},
      {"key_dtype", [](auto* inputs) { inputs->key_dtype = MOLKV_INT4; }, MOLKV_UNSUPPORTED},
      {"value_dtype", [](auto* inputs) { inputs->value_dtype = MOLKV_NONE; }},
      {"value_size / heads is 4", [](auto* inputs) { inputs->value_dtype = MOLKV_INT4; }},
      {"value_scales",
       [](auto* inputs) {
         inputs->value_dtype = MOLKV_INT4;
         inputs->value_size = 64;
         inputs->value_scales = nullptr;
       }},
      {"query", [](auto* inputs) { inputs->query = nullptr; }},
      {"keys", [](auto* inputs) { inputs->keys = nullptr; }},
      {"values", [](auto* inputs) { inputs->values = nullptr; }},
      {"age_bias", [](auto* inputs) { inputs->age_bias = nullptr; }},
      {"keys has more elements",
       [](auto* inputs) { inputs->rows = inputs->experts = inputs->value_size = UINT32_MAX - 1; }},
      {"age_bias has more elements",
       [](auto* inputs) {
         inputs->window = inputs->experts = UINT32_MAX;
         inputs->heads = 8;
       }},
  };
  for (const Wrong& wrong : all) {
    Case example({3, 8, 2, 2, 4, 8, 4});
    wrong.make(&example.inputs());
    float output[3 * 8] = {7};
    molkv_error error;
    EXPECT_EQ(molkv_attention(&example.inputs(), output, nullptr, nullptr, nullptr, &error),
              wrong.status);
    EXPECT_EQ(error.status, wrong.status);
    EXPECT_NE(std::string(error.message).find(wrong.named), std::string::npos) << error.message;
    EXPECT_EQ(output[0], 7);
    EXPECT_EQ(molkv_attention_scratch_bytes(&example.inputs()), 0u);
  }
  Case example({3, 8, 2, 2, 4, 8, 4});
  EXPECT_EQ(molkv_attention(nullptr, nullptr, nullptr, nullptr, nullptr, nullptr),
            MOLKV_INVALID_ARGUMENT);
  EXPECT_EQ(molkv_attention(&example.inputs(), nullptr, nullptr, nullptr, nullptr, nullptr),
            MOLKV_INVALID_ARGUMENT);
}

}  // namespace
}  // namespace molkv
