#include "json.h"

#include <gtest/gtest.h>

#include <string>

#include "error.h"

namespace molkv {
namespace {

std::string Problem(const std::string& json) {
  try {
    JsonDocument document(json);
  } catch (const Error& error) {
    EXPECT_EQ(error.status(), MOLKV_FORMAT);
    const std::string message = error.what();
    const std::string end = " (copy the file anew)";
    EXPECT_EQ(message.substr(message.size() - end.size()), end);
    return message.substr(0, message.size() - end.size());
  }
  return "none";
}

std::string Text(const std::string& json) {
  const JsonDocument document(json);
  return std::string(document.Root().text());
}

TEST(Json, ReadsEveryKindOfValue) {
  const JsonDocument document(
      " {\"a\" : [1, -2.5e+3, \"x\", null, true, false, [], {}],\n\t\"b\":{\"c\":0}}\r\n");
  const JsonValue root = document.Root();
  ASSERT_TRUE(root.IsObject());
  ASSERT_EQ(root.size(), 2u);
  EXPECT_EQ(root.First().text(), "a");
  JsonValue item = root.First().Next();
  ASSERT_TRUE(item.IsArray());
  ASSERT_EQ(item.size(), 8u);
  item = item.First();
  EXPECT_EQ(item.text(), "1");
  item = item.Next();
  EXPECT_EQ(item.text(), "-2.5e+3");
  item = item.Next();
  EXPECT_EQ(item.text(), "x");
  item = item.Next();
  EXPECT_TRUE(item.IsNull());
  item = item.Next();
  EXPECT_EQ(item.kind(), JsonKind::kTrue);
  item = item.Next();
  EXPECT_EQ(item.kind(), JsonKind::kFalse);
  item = item.Next();
  EXPECT_TRUE(item.IsArray());
  EXPECT_EQ(item.size(), 0u);
  item = item.Next();
  EXPECT_TRUE(item.IsObject());
  JsonValue value = root;
  ASSERT_TRUE(root.Find("b", &value));
  ASSERT_TRUE(value.Find("c", &value));
  EXPECT_EQ(value.text(), "0");
  EXPECT_FALSE(root.Find("c", &value));
  EXPECT_FALSE(value.Find("c", &value));
}

TEST(Json, ReadsEscapes) {
  EXPECT_EQ(Text(R"("\"\\\/\b\f\n\r\t")"), "\"\\/\b\f\n\r\t");
  EXPECT_EQ(Text(R"("\u0041\u00e9\u65E5\ud83D\uDE42\u0000x")"),
            std::string("A\xC3\xA9\xE6\x97\xA5\xF0\x9F\x99\x82\0x", 12));
  EXPECT_EQ(Text("\"\xF0\x9F\x99\x82\""), "\xF0\x9F\x99\x82");
}

TEST(Json, ReadsIntegers) {
  const auto read = [](const char* json, uint32_t most) -> int64_t {
    const JsonDocument document(json);
    uint32_t result = 0;
    return document.Root().ReadInteger(most, &result) ? int64_t{result} : -1;
  };
  EXPECT_EQ(read("0", 0), 0);
  EXPECT_EQ(read("1", 0), -1);
  EXPECT_EQ(read("4294967295", UINT32_MAX), 4294967295);
  EXPECT_EQ(read("4294967296", UINT32_MAX), -1);
  EXPECT_EQ(read("99999999999999999999999999", UINT32_MAX), -1);
  for (const char* other : {"-1", "-0", "1.0", "1e2", "\"1\"", "\"\"", "null", "[]", "true"}) {
    EXPECT_EQ(read(other, 100), -1) << other;
  }
}

TEST(Json, NamesTheByteWhereItStopsBeingJson) {
  EXPECT_EQ(Problem(""), "not JSON: byte 0: expected a value");
  EXPECT_EQ(Problem("  "), "not JSON: byte 2: expected a value");
  EXPECT_EQ(Problem("[1,]"), "not JSON: byte 3: expected a value");
  EXPECT_EQ(Problem("[1 2]"), "not JSON: byte 3: expected ',' or ']'");
  EXPECT_EQ(Problem("{\"a\":1,}"), "not JSON: byte 7: expected a key in double quotes");
  EXPECT_EQ(Problem("{a:1}"), "not JSON: byte 1: expected a key in double quotes");
  EXPECT_EQ(Problem("{\"a\" 1}"), "not JSON: byte 5: expected ':'");
  EXPECT_EQ(Problem("{\"a\":1"), "not JSON: byte 6: expected ',' or '}'");
  EXPECT_EQ(Problem("1 x"), "not JSON: byte 2: text after the end of the value");
  EXPECT_EQ(Problem("\"abc"), "not JSON: byte 4: the text ends inside a string");
  EXPECT_EQ(Problem("\"a\nb\""), "not JSON: byte 2: a control character inside a string");
  EXPECT_EQ(Problem("\"\\x\""), "not JSON: byte 2: an unknown escape");
  EXPECT_EQ(Problem("\"\\"), "not JSON: byte 2: an unknown escape");
  EXPECT_EQ(Problem("\"\\u12g4\""), "not JSON: byte 5: expected four hexadecimal digits");
  EXPECT_EQ(Problem("{\"a\":{\"b\":1,\"c\":2,\"b\":3}}"),
            "not JSON: byte 5: the object that begins here repeats the key \"b\"");
}

TEST(Json, RefusesWhatReadersDisagreeOn) {
  for (const char* json : {"01",
                           "-",
                           "+1",
                           ".5",
                           "1.",
                           "1.e1",
                           "1e",
                           "1e+",
                           "0x1",
                           "NaN",
                           "Infinity",
                           "nul",
                           "nulll",
                           "truefalse",
                           "'a'",
                           "[1,,2]",
                           "[,1]",
                           "{,}",
                           "// c\n1",
                           "\"\\ud800\"",
                           "\"\\udc00\"",
                           "\"\\ud800\\ud800\"",
                           "\"\\ud800x\"",
                           "\"\\ud800\\n\"",
                           "\"\x80\"",
                           "\"\xC0\xAF\"",
                           "\"\xED\xA0\x80\"",
                           "\"\xF4\x90\x80\x80\"",
                           "\"\xE2\x82\"",
                           "\xEF\xBB\xBF[]",
                           "[1]]",
                           "]",
                           "\x01",
                           "{\"a\"}",
                           "{1:2}",
                           "{null:2}",
                           "\"\x01\""}) {
    EXPECT_NE(Problem(json), "none") << json;
  }
  EXPECT_NE(Problem(std::string("\"\0\"", 3)), "none");
  EXPECT_NE(Problem(std::string("1\0", 2)), "none");
}

TEST(Json, DepthIsLimited) {
  const auto nested = [](int depth) { return std::string(depth, '[') + std::string(depth, ']'); };
  EXPECT_EQ(Problem(nested(kDeepestJson)), "none");
  EXPECT_EQ(Problem(nested(kDeepestJson + 1)), "not JSON: byte 64: nested deeper than 64 levels");
  EXPECT_NE(Problem(std::string(1 << 20, '[')), "none");
}

TEST(Json, SizeIsLimited) { EXPECT_THROW(JsonDocument(std::string(kLargestJson + 1, ' ')), Error); }

TEST(Json, EveryBeginningIsRefused) {
  const std::string json = R"({"a":[1,{"b":"\u00e9\ud83d\ude42"},true],"c":null})";
  EXPECT_EQ(Problem(json), "none");
  for (size_t size = 0; size < json.size(); ++size) {
    EXPECT_NE(Problem(json.substr(0, size)), "none") << size;
  }
}

}  // namespace
}  // namespace molkv
