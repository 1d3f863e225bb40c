#include "text_stream.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "byte_alphabet.h"
#include "error.h"
#include "utf8.h"

namespace molkv {
namespace {

// A tokenizer whose ids are bytes, and 256 the special token "<end>".
TokenizerParts Bytes() {
  TokenizerParts parts{{}, MergeTable(0), false, {}, {}};
  for (uint32_t byte = 0; byte < 0x100; ++byte) {
    std::string character;
    AppendUtf8(kByteAlphabet.characters[byte], &character);
    parts.vocabulary.Add(byte, character, TokenOrigin::kModel);
  }
  parts.vocabulary.Add(0x100, "<end>", TokenOrigin::kAdded);
  parts.added_tokens.Add({0x100, "<end>", false, false, false, false, true});
  return parts;
}

std::vector<std::string> Streamed(TextStream* stream, const std::vector<int64_t>& ids) {
  std::vector<std::string> texts;
  for (const int64_t id : ids) {
    texts.push_back(stream->Push(id));
  }
  texts.push_back(stream->Finish());
  return texts;
}

using Texts = std::vector<std::string>;

constexpr char kInvalid[] = "\xEF\xBF\xBD";

TEST(TextStream, CharactersComeWhole) {
  const Tokenizer tokenizer(Bytes());
  TextStream stream(tokenizer, false);
  EXPECT_EQ(Streamed(&stream, {'a', 0xF0, 0x9F, 0x99, 0x82, 'b'}),
            Texts({"a", "", "", "", "\xF0\x9F\x99\x82", "b", ""}));
  EXPECT_EQ(Streamed(&stream, {0xC3, 'x', 0xE2, 0x82}),
            Texts({"", std::string(kInvalid) + "x", "", "", kInvalid}));
  EXPECT_EQ(Streamed(&stream, {'a'}), Texts({"a", ""}));  // a finished stream starts afresh
}

TEST(TextStream, SpecialTokensAreLeftOutOnRequest) {
  const Tokenizer tokenizer(Bytes());
  TextStream with(tokenizer, false);
  TextStream without(tokenizer, true);
  EXPECT_EQ(Streamed(&with, {0xC3, 0x100, 5000}),
            Texts({"", std::string(kInvalid) + "<end>", "", ""}));
  EXPECT_EQ(Streamed(&without, {0xC3, 0x100, 0xA9}), Texts({"", "", "\xC3\xA9", ""}));
}

TEST(TextStream, AllPartsAreTheWholeDecode) {
  const Tokenizer tokenizer(Bytes());
  TextStream stream(tokenizer, false);
  uint32_t random = 5;
  const uint8_t bytes[] = {'a',  0x80, 0x8F, 0x90, 0x9F, 0xA0, 0xBF, 0xC1, 0xC2,
                           0xE0, 0xE2, 0xED, 0xEF, 0xF0, 0xF1, 0xF4, 0xF5};
  for (int round = 0; round < 20000; ++round) {
    std::vector<int64_t> ids;
    for (int index = 0; index < 12; ++index) {
      random = random * 1664525u + 1013904223u;
      ids.push_back(bytes[(random >> 16) % sizeof(bytes)]);
    }
    std::string together;
    for (const std::string& text : Streamed(&stream, ids)) {
      ASSERT_EQ(ValidUtf8Prefix(text), text.size());
      together += text;
    }
    ASSERT_EQ(together, tokenizer.Decode(ids.data(), ids.size(), false));
  }
}

TEST(TextStream, RefusesWhatIsNoId) {
  const Tokenizer tokenizer(Bytes());
  TextStream stream(tokenizer, false);
  EXPECT_EQ(stream.Push(0xC3), "");
  EXPECT_THROW(stream.Push(-1), Error);
  EXPECT_THROW(stream.Push(int64_t{1} << 32), Error);
  EXPECT_EQ(stream.Push(0xA9), "\xC3\xA9");
}

TEST(TextStream, TheInterfaceHandsOutTexts) {
  molkv_tokenizer tokenizer(Bytes());
  molkv_text_stream* stream = nullptr;
  molkv_error error;
  ASSERT_EQ(molkv_text_stream_create(&tokenizer, 0, &stream, &error), MOLKV_OK);
  const char* text = nullptr;
  size_t size = 99;
  ASSERT_EQ(molkv_text_stream_push(stream, 0xC3, &text, &size, &error), MOLKV_OK);
  EXPECT_EQ(size, 0u);
  ASSERT_EQ(molkv_text_stream_finish(stream, &text, &size, &error), MOLKV_OK);
  EXPECT_EQ(std::string(text, size), kInvalid);
  EXPECT_EQ(molkv_text_stream_push(stream, -1, &text, &size, &error), MOLKV_OUT_OF_RANGE);
  EXPECT_EQ(error.status, MOLKV_OUT_OF_RANGE);
  molkv_text_stream_free(stream);
}

}  // namespace
}  // namespace molkv
