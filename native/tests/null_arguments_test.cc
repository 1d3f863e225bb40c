// What molkv.h promises of NULL: a status where a function can fail, nothing where it cannot.

#include <gtest/gtest.h>

#include <functional>
#include <string>

#include "molkv/molkv.h"

namespace molkv {
namespace {

struct Call {
  const char* name;
  std::function<molkv_status(molkv_error*)> run;
};

TEST(NullArguments, AreRefusedWhereAFunctionCanFail) {
  const Call calls[] = {
      {"blob_open", [](auto* e) { return molkv_blob_open(nullptr, 1, nullptr, nullptr, e); }},
      {"blob_open_descriptor",
       [](auto* e) { return molkv_blob_open_descriptor(0, 0, 0, nullptr, nullptr, e); }},
      {"blob_embeddings",
       [](auto* e) { return molkv_blob_embeddings(nullptr, nullptr, nullptr, 1, nullptr, e); }},
      {"blob_read",
       [](auto* e) { return molkv_blob_read(nullptr, nullptr, 1, nullptr, nullptr, nullptr, e); }},
      {"prefetch_start",
       [](auto* e) { return molkv_prefetch_start(nullptr, nullptr, 1, nullptr, e); }},
      {"prefetch_wait",
       [](auto* e) { return molkv_prefetch_wait(nullptr, nullptr, nullptr, nullptr, e); }},
      {"window_create", [](auto* e) { return molkv_window_create(nullptr, 1, 1, nullptr, e); }},
      {"window_append",
       [](auto* e) { return molkv_window_append(nullptr, nullptr, 64, nullptr, 1, e); }},
      {"window_plane",
       [](auto* e) { return molkv_window_plane(nullptr, 0, MOLKV_KEYS, nullptr, e); }},
      {"window_truncate", [](auto* e) { return molkv_window_truncate(nullptr, 0, e); }},
      {"window_fork", [](auto* e) { return molkv_window_fork(nullptr, nullptr, e); }},
      {"attention",
       [](auto* e) { return molkv_attention(nullptr, nullptr, nullptr, nullptr, nullptr, e); }},
      {"sampler_create", [](auto* e) { return molkv_sampler_create(nullptr, nullptr, e); }},
      {"sampler_sample",
       [](auto* e) { return molkv_sampler_sample(nullptr, nullptr, 1, nullptr, e); }},
      {"tokenizer_open", [](auto* e) { return molkv_tokenizer_open(nullptr, nullptr, e); }},
      {"tokenizer_parse", [](auto* e) { return molkv_tokenizer_parse(nullptr, 1, nullptr, e); }},
      {"tokenizer_encode",
       [](auto* e) { return molkv_tokenizer_encode(nullptr, nullptr, 1, nullptr, nullptr, e); }},
      {"tokenizer_decode",
       [](auto* e) { return molkv_tokenizer_decode(nullptr, nullptr, 1, 0, nullptr, nullptr, e); }},
      {"text_stream_create",
       [](auto* e) { return molkv_text_stream_create(nullptr, 0, nullptr, e); }},
      {"text_stream_push",
       [](auto* e) { return molkv_text_stream_push(nullptr, 0, nullptr, nullptr, e); }},
      {"text_stream_finish",
       [](auto* e) { return molkv_text_stream_finish(nullptr, nullptr, nullptr, e); }},
  };
  for (const Call& call : calls) {
    molkv_error error = {};
    EXPECT_EQ(call.run(&error), MOLKV_INVALID_ARGUMENT) << call.name;
    EXPECT_EQ(error.status, MOLKV_INVALID_ARGUMENT) << call.name;
    EXPECT_NE(std::string(error.message), "") << call.name;
    EXPECT_EQ(call.run(nullptr), MOLKV_INVALID_ARGUMENT) << call.name;
  }
}

TEST(NullArguments, DoNothingWhereAFunctionCannotFail) {
  molkv_blob_close(nullptr);
  molkv_prefetch_free(nullptr);
  molkv_window_free(nullptr);
  molkv_window_reset(nullptr);
  molkv_sampler_free(nullptr);
  molkv_sampler_reset(nullptr);
  molkv_tokenizer_close(nullptr);
  molkv_text_stream_free(nullptr);
  EXPECT_EQ(molkv_blob_embedding_dtype(nullptr), uint32_t{MOLKV_NONE});
  molkv_blob_info info = {};
  molkv_blob_get_info(nullptr, &info);
  EXPECT_EQ(info.vocabulary_size, 0u);
  molkv_blob_stats stats = {};
  molkv_blob_get_stats(nullptr, &stats);
  EXPECT_EQ(stats.reads, 0u);
  uint64_t first = 7, last = 7;
  molkv_window_bounds(nullptr, &first, &last);
  EXPECT_EQ(first + last, 14u);
  EXPECT_EQ(molkv_window_bytes(nullptr), 0u);
  EXPECT_EQ(molkv_attention_scratch_bytes(nullptr), 0u);
  EXPECT_EQ(molkv_tokenizer_vocabulary_size(nullptr), 0u);
  EXPECT_EQ(molkv_tokenizer_token_count(nullptr), 0u);
  EXPECT_EQ(molkv_tokenizer_find(nullptr, "a", 1), -1);
}

TEST(NullArguments, AreRefusedByScratchBytesForArrays) {
  molkv_attention_inputs inputs = {};
  inputs.struct_size = sizeof(inputs);
  inputs.tokens = inputs.rows = inputs.experts = inputs.heads = 1;
  inputs.key_size = inputs.value_size = inputs.window = 1;
  inputs.key_dtype = inputs.value_dtype = MOLKV_INT8;
  const float number = 0;
  inputs.query = inputs.age_bias = &number;
  inputs.keys = &number;
  EXPECT_EQ(molkv_attention_scratch_bytes(&inputs), 0u);
  inputs.values = &number;
  EXPECT_GT(molkv_attention_scratch_bytes(&inputs), 0u);
}

}  // namespace
}  // namespace molkv
