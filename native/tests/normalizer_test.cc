#include "normalizer.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <string>
#include <tuple>

#include "normalization_tables.h"
#include "utf8.h"

namespace molkv {
namespace {

std::string Text(const std::u32string& code_points) {
  std::string text;
  for (const char32_t code_point : code_points) {
    AppendUtf8(code_point, &text);
  }
  return text;
}

std::string Nfc(const std::string& text) {
  std::string buffer = "what was there before";
  return std::string(Normalize(Normalizer::kNfc, text, &buffer));
}

std::string Nfc(const std::u32string& code_points) { return Nfc(Text(code_points)); }

// A random sequence that is the same in each run.
class Random {
 public:
  uint32_t Draw(uint32_t count) {
    state_ = state_ * 1664525u + 1013904223u;
    return (state_ >> 8) % count;
  }

 private:
  uint32_t state_ = 1;
};

TEST(Normalizer, NoneKeepsEveryText) {
  std::string buffer;
  const std::string text = Text(U"e\u0301\u212B");
  EXPECT_EQ(Normalize(Normalizer::kNone, text, &buffer).data(), text.data());
}

TEST(Normalizer, InertTextIsNotCopied) {
  std::string buffer;
  for (const std::u32string& code_points :
       {std::u32string(), std::u32string(U"plain text of more than eight bytes"),
        std::u32string(U"caf\u00E9 \u00FC\u017F"), std::u32string(U"\u65E5\u672C \uD55C\uAD6D"),
        std::u32string(U"\U0001F642\U00010FFF")}) {
    const std::string text = Text(code_points);
    const std::string_view result = Normalize(Normalizer::kNfc, text, &buffer);
    EXPECT_EQ(result.data(), text.data());
    EXPECT_EQ(result.size(), text.size());
  }
}

TEST(Normalizer, LettersAndMarksBecomeOne) {
  EXPECT_EQ(Nfc(U"e\u0301"), Text(U"\u00E9"));
  EXPECT_EQ(Nfc(U"cafe\u0301 au lait"), Text(U"caf\u00E9 au lait"));
  EXPECT_EQ(Nfc(U"\u00FCu\u0304\u0301\u00FC\u0304"), Text(U"\u00FC\u016B\u0301\u01D6"));
  EXPECT_EQ(Nfc(U"\u304B\u3099\u304B"), Text(U"\u304C\u304B"));
  EXPECT_EQ(Nfc(U"\u09C7\u09BE"), Text(U"\u09CB"));  // two starters
  EXPECT_EQ(Nfc(U"\U00011131\U00011127"), Text(U"\U0001112E"));
  EXPECT_EQ(Nfc(U"x\u0301"), Text(U"x\u0301"));
  EXPECT_EQ(Nfc(U"\u0301e"), Text(U"\u0301e"));
}

TEST(Normalizer, MarksAreOrderedByClassAndKeptInOrderWithinOne) {
  EXPECT_EQ(Nfc(U"x\u0301\u0323"), Text(U"x\u0323\u0301"));
  EXPECT_EQ(Nfc(U"x\u0301\u0300"), Text(U"x\u0301\u0300"));
  EXPECT_EQ(Nfc(U"\u00E9\u0323"), Text(U"\u1EB9\u0301"));
  EXPECT_EQ(Nfc(U"\u0345\u0301\u0334"), Text(U"\u0334\u0301\u0345"));
}

TEST(Normalizer, MarksOfTheSameClassBlock) {
  EXPECT_EQ(Nfc(U"a\u0306\u0301"), Text(U"\u1EAF"));
  EXPECT_EQ(Nfc(U"a\u030B\u0301"), Text(U"a\u030B\u0301"));
  EXPECT_EQ(Nfc(U"a\u0334\u0301"), Text(U"\u00E1\u0334"));
}

TEST(Normalizer, SingletonsAndExcludedCharactersChange) {
  EXPECT_EQ(Nfc(U"\u212B\u2126"), Text(U"\u00C5\u03A9"));
  EXPECT_EQ(Nfc(U"\u0340"), Text(U"\u0300"));
  EXPECT_EQ(Nfc(U"\u0344"), Text(U"\u0308\u0301"));
  EXPECT_EQ(Nfc(U"\u0958"), Text(U"\u0915\u093C"));
  EXPECT_EQ(Nfc(U"\uFB2C"), Text(U"\u05E9\u05BC\u05C1"));
  EXPECT_EQ(Nfc(U"\U0002F800"), Text(U"\u4E3D"));
  EXPECT_EQ(Nfc(U"\U0001D160"), Text(U"\U0001D158\U0001D165\U0001D16E"));
}

TEST(Normalizer, HangulIsComputed) {
  EXPECT_EQ(Nfc(U"\u1112\u1161\u11AB\u1100\u1173\u11AF"), Text(U"\uD55C\uAE00"));
  EXPECT_EQ(Nfc(U"\uAC00\u11A8"), Text(U"\uAC01"));
  EXPECT_EQ(Nfc(U"\uAC01\u11A8"), Text(U"\uAC01\u11A8"));
  EXPECT_EQ(Nfc(U"\uAC00\u11A7"), Text(U"\uAC00\u11A7"));
  EXPECT_EQ(Nfc(U"\uD7A3\u1161"), Text(U"\uD7A3\u1161"));
  EXPECT_EQ(Nfc(U"\u1100\u0301\u1161"), Text(U"\u1100\u0301\u1161"));
}

TEST(Normalizer, MarksThatCameAfterTheTablesStay) {
  EXPECT_EQ(Nfc(U"a\u0301\u1DF6"), Text(U"\u00E1\u1DF6"));  // class 232 since Unicode 10
  EXPECT_EQ(Nfc(U"a\u1DF6\u0301"), Text(U"a\u1DF6\u0301"));
  EXPECT_EQ(Nfc(U"\U00011935\U00011930"), Text(U"\U00011935\U00011930"));
}

TEST(Normalizer, EveryTextIsNormalizedOnce) {
  const char32_t characters[] =
      U"a e\u00E9\u0301\u0300\u0323\u0345\u0344\u1100\u1161\u11A8\uAC00"
      U"\u212B\u0958\u093C\u3099\u304B\U0001D15E\U0001F642";
  Random random;
  for (int round = 0; round < 5000; ++round) {
    std::u32string code_points;
    for (uint32_t size = random.Draw(20); size > 0; --size) {
      code_points.push_back(characters[random.Draw(std::size(characters) - 1)]);
    }
    const std::string once = Nfc(code_points);
    ASSERT_EQ(ValidUtf8Prefix(once), once.size());
    ASSERT_EQ(Nfc(once), once);
    // A letter that nothing joins keeps what stands around it apart.
    ASSERT_EQ(Nfc(Text(code_points) + "q" + Text(code_points)), once + "q" + once);
  }
}

TEST(NormalizationTables, AreInOrderAndInBounds) {
  EXPECT_EQ(kNormalizationRanges[0], kInert);
  EXPECT_EQ(kNormalizationRanges[1] >> kNormalizationClassBits, kFirstActive);
  EXPECT_EQ(kNormalizationRanges[kNormalizationRangeCount - 1] & 0xFF, kInert);
  EXPECT_TRUE(
      std::is_sorted(kNormalizationRanges, kNormalizationRanges + kNormalizationRangeCount));
  EXPECT_TRUE(std::is_sorted(kDecomposed, kDecomposed + kDecomposedCount));
  EXPECT_TRUE(std::is_sorted(kCompositions, kCompositions + kCompositionCount,
                             [](const Composition& left, const Composition& right) {
                               return std::tie(left.first, left.second) <
                                      std::tie(right.first, right.second);
                             }));
  for (size_t index = 0; index < kCompositionCount; ++index) {
    const Composition& pair = kCompositions[index];
    std::string both;
    AppendUtf8(pair.first, &both);
    AppendUtf8(pair.second, &both);
    std::string one;
    AppendUtf8(pair.composed, &one);
    EXPECT_EQ(Nfc(both), one);
    EXPECT_EQ(Nfc(one), one);
  }
}

}  // namespace
}  // namespace molkv
