#include "tokenizer.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <string>
#include <vector>

#include "byte_alphabet.h"
#include "error.h"
#include "pre_tokenizer.h"
#include "unicode_tables.h"
#include "utf8.h"

namespace molkv {
namespace {

using Pieces = std::vector<std::string>;

Pieces Cut(SplitPattern pattern, std::string_view text) {
  Pieces pieces;
  while (!text.empty()) {
    const size_t size = FirstPieceSize(pattern, text);
    EXPECT_GT(size, 0u);
    pieces.emplace_back(text.substr(0, size));
    text.remove_prefix(size);
  }
  return pieces;
}

// A tokenizer of all bytes, with ids 0 to 255 in their order, and then the given tokens.
std::string File(const std::vector<std::string>& tokens, const std::string& merges,
                 const std::string& added = "", const std::string& normalizer = "null") {
  std::string vocabulary;
  const auto add = [&](const std::string& token, size_t id) {
    const std::string escaped = token == "\"" ? "\\\"" : token == "\\" ? "\\\\" : token;
    vocabulary += (id > 0 ? ",\"" : "\"") + escaped + "\":" + std::to_string(id);
  };
  for (size_t byte = 0; byte < 0x100; ++byte) {
    std::string character;
    AppendUtf8(kByteAlphabet.characters[byte], &character);
    add(character, byte);
  }
  for (size_t index = 0; index < tokens.size(); ++index) {
    add(tokens[index], 0x100 + index);
  }
  const std::string byte_level =
      R"({"type":"ByteLevel","add_prefix_space":false,"trim_offsets":true,"use_regex":true})";
  return R"({"version":"1.0","added_tokens":[)" + added + R"(],"normalizer":)" + normalizer +
         R"(,"pre_tokenizer":)" + byte_level + R"(,"decoder":)" + byte_level +
         R"(,"model":{"type":"BPE","vocab":{)" + vocabulary + R"(},"merges":[)" + merges + "]}}";
}

std::string Added(size_t id, const std::string& content, const std::string& flags) {
  const auto flag = [&](const char* name, char letter) {
    return std::string(",\"") + name +
           "\":" + (flags.find(letter) == std::string::npos ? "false" : "true");
  };
  return "{\"id\":" + std::to_string(id) + ",\"content\":\"" + content + "\"" +
         flag("single_word", 'w') + flag("lstrip", 'l') + flag("rstrip", 'r') +
         flag("normalized", 'n') + flag("special", 's') + "}";
}

using Ids = std::vector<int64_t>;

TEST(Utf8, InvalidPartsAreMaximal) {
  const auto replaced = [](const std::string& text) {
    std::string result;
    AppendReplacingInvalid(text, &result);
    size_t count = 0;
    for (size_t place = 0; (place = result.find(kReplacementCharacter, place)) != result.npos;
         ++place) {
      ++count;
    }
    return count;
  };
  EXPECT_EQ(replaced("plain \xC3\xA9 \xF0\x9F\x99\x82"), 0u);
  EXPECT_EQ(replaced("\x80"), 1u);
  EXPECT_EQ(replaced("\xC3"), 1u);
  EXPECT_EQ(replaced("\xC3\xC3"), 2u);
  EXPECT_EQ(replaced("\xE2\x82"), 1u);
  EXPECT_EQ(replaced("\xE2\x82\xE2\x82"), 2u);
  EXPECT_EQ(replaced("\xED\xA0\x80"), 3u);
  EXPECT_EQ(replaced("\xE0\x80\x80"), 3u);
  EXPECT_EQ(replaced("\xF0\x9F\x99"), 1u);
  EXPECT_EQ(replaced("\xF0\x8F\x99\x82"), 4u);
  EXPECT_EQ(replaced("\xF4\x90\x80\x80"), 4u);
  EXPECT_EQ(replaced("\xF5\x80\xC0\xAF"), 4u);
}

TEST(Utf8, EveryCharacterComesBack) {
  for (uint32_t code = 0; code < 0x110000; ++code) {
    if (code >= 0xD800 && code < 0xE000) {
      continue;
    }
    std::string text;
    AppendUtf8(code, &text);
    const Utf8Character character = ReadUtf8(text);
    ASSERT_EQ(character.state, Utf8State::kValid) << code;
    ASSERT_EQ(character.code_point, code);
    ASSERT_EQ(character.size, text.size());
    ASSERT_EQ(ReadValidUtf8(text).code_point, code);
    for (size_t size = 1; size < text.size(); ++size) {
      ASSERT_EQ(ReadUtf8(text.substr(0, size)).state, Utf8State::kUnfinished);
      ASSERT_EQ(ReadUtf8(text.substr(0, size)).size, size);
    }
  }
}

TEST(UnicodeTables, KnownCharacters) {
  EXPECT_EQ(CharacterFlags('a'), uint32_t{kLetter | kWord});
  EXPECT_EQ(CharacterFlags('_'), uint32_t{kWord});
  EXPECT_EQ(CharacterFlags('7'), uint32_t{kNumber | kWord});
  EXPECT_EQ(CharacterFlags(0x85), uint32_t{kSpace});
  EXPECT_EQ(CharacterFlags(0x3000), uint32_t{kSpace});
  EXPECT_EQ(CharacterFlags(0x200B), 0u);
  EXPECT_EQ(CharacterFlags(0x65E5), uint32_t{kLetter | kWord});
  EXPECT_EQ(CharacterFlags(0xBD), uint32_t{kNumber});
  EXPECT_EQ(CharacterFlags(0x301), uint32_t{kWord});
  EXPECT_EQ(CharacterFlags(0x1F642), 0u);
  EXPECT_EQ(CharacterFlags(0x10FFFF), 0u);
}

TEST(PreTokenizer, Gpt2) {
  const auto cut = [](std::string_view text) { return Cut(SplitPattern::kGpt2, text); };
  EXPECT_EQ(cut("I'll go, it's 12 o'clock"),
            Pieces({"I", "'ll", " go", ",", " it", "'s", " 12", " o", "'", "clock"}));
  EXPECT_EQ(cut("a  b"), Pieces({"a", " ", " b"}));
  EXPECT_EQ(cut("a\n\nb"), Pieces({"a", "\n", "\n", "b"}));
  EXPECT_EQ(cut("a \n "), Pieces({"a", " \n "}));
  EXPECT_EQ(cut(" "), Pieces({" "}));
  EXPECT_EQ(cut("'S 's''s"), Pieces({"'", "S", " '", "s", "''", "s"}));
  EXPECT_EQ(cut("x1!"), Pieces({"x", "1", "!"}));
  EXPECT_EQ(cut("\xE3\x80\x80\xE6\x97\xA5"), Pieces({"\xE3\x80\x80", "\xE6\x97\xA5"}));
}

TEST(PreTokenizer, Gpt4) {
  const auto cut = [](std::string_view text) { return Cut(SplitPattern::kGpt4, text); };
  EXPECT_EQ(cut("I'LL (go) 12345"), Pieces({"I", "'LL", " (", "go", ")", " ", "123", "45"}));
  EXPECT_EQ(cut("a!\n\n  \n b"), Pieces({"a", "!\n\n", "  \n", " b"}));
  EXPECT_EQ(cut("'\xC5\xBFx"), Pieces({"'\xC5\xBF", "x"}));
  EXPECT_EQ(cut("!a \tb"), Pieces({"!a", " ", "\tb"}));
  EXPECT_EQ(Cut(SplitPattern::kQwen2, "12x"), Pieces({"1", "2", "x"}));
  EXPECT_EQ(Cut(SplitPattern::kNone, "12 x"), Pieces({"12 x"}));
}

TEST(Tokenizer, MergesTheLowestRankFirst) {
  const Tokenizer tokenizer(
      ReadTokenizerFile(File({"bc", "ab", "abc"}, R"(["b","c"],["a","b"],["ab","c"])")));
  EXPECT_EQ(tokenizer.Encode("abc"), Ids({'a', 0x100}));
  EXPECT_EQ(tokenizer.Encode("ab"), Ids({0x101}));
  EXPECT_EQ(tokenizer.Encode(""), Ids());
}

// A short piece and a long one are merged by different code.
TEST(Tokenizer, LongPiecesMergeAsShortOnes) {
  const Tokenizer tokenizer(
      ReadTokenizerFile(File({"ab", "ba", "aa", "aba", "abab", "bb"},
                             R"(["a","b"],["b","a"],["a","a"],["ab","a"],["ab","ab"],["b","b"])")));
  uint32_t random = 1;
  const auto draw = [&](uint32_t count) {
    random = random * 1664525u + 1013904223u;
    return (random >> 16) % count;
  };
  for (int round = 0; round < 3000; ++round) {
    std::string piece;
    for (uint32_t size = draw(60); size > 0; --size) {
      piece.push_back(static_cast<char>('a' + draw(2)));
    }
    // By the definition: the lowest rank, the leftmost on a tie.
    std::vector<std::string> parts;
    for (const char letter : piece) {
      parts.emplace_back(1, letter);
    }
    for (bool merged = true; merged;) {
      merged = false;
      for (const auto& [left, right] : std::vector<std::pair<std::string, std::string>>{
               {"a", "b"}, {"b", "a"}, {"a", "a"}, {"ab", "a"}, {"ab", "ab"}, {"b", "b"}}) {
        for (size_t place = 0; !merged && place + 1 < parts.size(); ++place) {
          if (parts[place] == left && parts[place + 1] == right) {
            parts[place] += right;
            parts.erase(parts.begin() + place + 1);
            merged = true;
          }
        }
        if (merged) {
          break;
        }
      }
    }
    Ids expected;
    for (const std::string& part : parts) {
      expected.push_back(tokenizer.vocabulary().Find(part));
    }
    ASSERT_EQ(tokenizer.Encode(piece), expected) << piece;
  }
}

TEST(Tokenizer, AddedTokensTakeSpacesAndRespectWords) {
  const Tokenizer tokenizer(ReadTokenizerFile(
      File({}, "",
           Added(256, "<l>", "l") + "," + Added(257, "<r>", "r") + "," + Added(258, "word", "w") +
               "," + Added(259, "<s>", "s") + "," + Added(260, "<s>x", "n"))));
  EXPECT_EQ(tokenizer.Encode("a \n<l> b"), Ids({'a', 256, ' ', 'b'}));
  EXPECT_EQ(tokenizer.Encode("<r>  <l>"), Ids({257, 256}));
  EXPECT_EQ(tokenizer.Encode("word-word"), Ids({258, '-', 258}));
  EXPECT_EQ(tokenizer.Encode("sw word"), Ids({'s', 'w', ' ', 258}));
  EXPECT_EQ(tokenizer.Encode("_word"), Ids({'_', 'w', 'o', 'r', 'd'}));
  EXPECT_EQ(tokenizer.Encode("<s>x"), Ids({259, 'x'}));  // what is not normalized comes first
  const Ids ids = {259, 'x', 258};
  EXPECT_EQ(tokenizer.Decode(ids.data(), ids.size(), false), "<s>xword");
  EXPECT_EQ(tokenizer.Decode(ids.data(), ids.size(), true), "xword");
  EXPECT_EQ(tokenizer.vocabulary().end(), 261u);
}

TEST(Tokenizer, TextIsNormalizedBetweenTokensThatAreNot) {
  const std::string added = Added(256, "e\xCC\x81x", "") + "," + Added(257, "A\xCC\x8Ax", "n");
  const std::string nfc = R"({"type":"Sequence","normalizers":[{"type":"NFC"}]})";
  const Tokenizer tokenizer(ReadTokenizerFile(File({}, "", added, nfc)));
  EXPECT_EQ(tokenizer.Encode("e\xCC\x81"), Ids({0xC3, 0xA9}));
  EXPECT_EQ(tokenizer.Encode("e\xCC\x81x"), Ids({256}));
  EXPECT_EQ(tokenizer.Encode("\xC3\xA9x"), Ids({0xC3, 0xA9, 'x'}));  // only as it is written
  for (const char* text : {"A\xCC\x8Ax", "\xC3\x85x", "\xE2\x84\xABx"}) {
    EXPECT_EQ(tokenizer.Encode(text), Ids({257}));
  }
  const Tokenizer plain(ReadTokenizerFile(File({}, "", added)));
  EXPECT_EQ(plain.Encode("e\xCC\x81"), Ids({'e', 0xCC, 0x81}));
  EXPECT_EQ(plain.Encode("\xC3\x85x"), Ids({0xC3, 0x85, 'x'}));
}

// Which of two the library finds changes from process to process.
TEST(Tokenizer, TokensThatNormalizeToTheSameAreRefused) {
  const std::string added = Added(256, "e\xCC\x81x", "n") + "," + Added(257, "\xC3\xA9x", "n");
  EXPECT_NO_THROW(ReadTokenizerFile(File({}, "", added)));
  EXPECT_THROW(ReadTokenizerFile(File({}, "", added, R"({"type":"NFC"})")), Error);
}

TEST(Tokenizer, BytesAreKeptUnlessInvalid) {
  const Tokenizer tokenizer(ReadTokenizerFile(File({}, "")));
  std::string text;
  for (uint32_t code = 1; code < 0x500; ++code) {
    AppendUtf8(code, &text);
  }
  const Ids ids = tokenizer.Encode(text);
  EXPECT_EQ(ids.size(), text.size());
  EXPECT_EQ(tokenizer.Decode(ids.data(), ids.size(), false), text);
  const Ids invalid = {0xE2, 0x82, 'x', 1000};
  EXPECT_EQ(tokenizer.Decode(invalid.data(), invalid.size(), false), "\xEF\xBF\xBDx");
  EXPECT_EQ(tokenizer.Encode("\xE2\x82x"), Ids({0xEF, 0xBF, 0xBD, 'x'}));
}

TEST(Tokenizer, CallsTellTheSizeFirst) {
  const std::string json = File({}, "");
  molkv_tokenizer* tokenizer = nullptr;
  molkv_error error;
  ASSERT_EQ(molkv_tokenizer_parse(json.data(), json.size(), &tokenizer, &error), MOLKV_OK);
  EXPECT_EQ(molkv_tokenizer_vocabulary_size(tokenizer), 256u);
  EXPECT_EQ(molkv_tokenizer_find(tokenizer, "a", 1), 'a');
  EXPECT_EQ(molkv_tokenizer_find(tokenizer, "ab", 2), -1);

  size_t count = 0;
  EXPECT_EQ(molkv_tokenizer_encode(tokenizer, "abc", 3, nullptr, &count, &error), MOLKV_OK);
  EXPECT_EQ(count, 3u);
  int64_t ids[3] = {-1, -1, -1};
  count = 2;
  EXPECT_EQ(molkv_tokenizer_encode(tokenizer, "abc", 3, ids, &count, &error), MOLKV_OUT_OF_RANGE);
  EXPECT_EQ(count, 3u);
  EXPECT_EQ(ids[0], -1);
  EXPECT_STREQ(error.message,
               "the result has 3 ids, and there is room for 2 (ask for the size first, with NULL)");
  EXPECT_EQ(molkv_tokenizer_encode(tokenizer, "abc", 3, ids, &count, &error), MOLKV_OK);
  EXPECT_EQ(ids[2], 'c');
  EXPECT_EQ(molkv_tokenizer_encode(tokenizer, nullptr, 0, ids, &count, &error), MOLKV_OK);
  EXPECT_EQ(count, 0u);

  char text[3] = {};
  size_t size = 0;
  EXPECT_EQ(molkv_tokenizer_decode(tokenizer, ids, 3, 0, nullptr, &size, &error), MOLKV_OK);
  EXPECT_EQ(size, 3u);
  EXPECT_EQ(molkv_tokenizer_decode(tokenizer, ids, 3, 0, text, &size, &error), MOLKV_OK);
  EXPECT_EQ(std::string(text, 3), "abc");
  molkv_tokenizer_close(tokenizer);
}

// Damage of every kind must end in an Error or in a tokenizer that works.
TEST(Tokenizer, DamagedFilesAreRefusedOrWork) {
  const std::string json = File({"bc"}, R"(["b","c"])", Added(257, "<l>", "lns"),
                                R"({"type":"Sequence","normalizers":[{"type":"NFC"}]})");
  uint32_t random = 7;
  size_t refused = 0;
  const char* rounds = std::getenv("MOLKV_FUZZ_ROUNDS");
  const int last = rounds == nullptr ? 4000 : std::atoi(rounds);
  for (int round = 0; round < last; ++round) {
    std::string damaged = json;
    const auto draw = [&](size_t count) {
      random = random * 1664525u + 1013904223u;
      return (random >> 8) % count;
    };
    for (size_t change = draw(4) + 1; change > 0; --change) {
      const size_t place = draw(damaged.size());
      const size_t size = draw(draw(8) == 0 ? 200 : 4);
      switch (draw(4)) {
        case 0:
          damaged[place] = static_cast<char>(draw(0x100));
          break;
        case 1:
          damaged[place] = "{}[]\",:0\\19eu"[draw(13)];
          break;
        case 2:
          damaged.erase(place, size);
          break;
        default:
          damaged.insert(place, std::string(damaged, draw(damaged.size()), size));
      }
      if (damaged.empty()) {
        damaged = json;
      }
    }
    try {
      const Tokenizer tokenizer(ReadTokenizerFile(damaged));
      const Ids ids = tokenizer.Encode("bc it's <l> \xF0\x9F\x99\x82  be\xCC\x81");
      tokenizer.Decode(ids.data(), ids.size(), true);
    } catch (const Error& error) {
      ASSERT_TRUE(error.status() == MOLKV_FORMAT || error.status() == MOLKV_UNSUPPORTED);
      ++refused;
    }
  }
  EXPECT_GT(refused, 0u);
}

}  // namespace
}  // namespace molkv
