#include "json.h"

#include <algorithm>

#include "error.h"
#include "utf8.h"

namespace molkv {

// Reads one text from its first byte to its last.
class JsonParser {
 public:
  JsonParser(std::string_view json, JsonDocument* document) : json_(json), document_(*document) {}

  void Parse() {
    if (json_.size() > kLargestJson) {
      throw Error(MOLKV_FORMAT, "the JSON has " + std::to_string(json_.size()) +
                                    " bytes, and at most " + std::to_string(kLargestJson) +
                                    " are read (pass a tokenizer.json)");
    }
    ParseValue(0);
    SkipSpace();
    if (place_ != json_.size()) {
      Fail("text after the end of the value");
    }
  }

 private:
  using Node = JsonDocument::Node;

  [[noreturn]] void Fail(const std::string& problem) const {
    throw Error(MOLKV_FORMAT, "not JSON: byte " + std::to_string(place_) + ": " + problem +
                                  " (copy the file anew)");
  }

  bool AtEnd() const { return place_ == json_.size(); }
  char Peek() const { return AtEnd() ? '\0' : json_[place_]; }

  bool Take(char expected) {
    if (AtEnd() || json_[place_] != expected) {
      return false;
    }
    ++place_;
    return true;
  }

  void SkipSpace() {
    while (!AtEnd() && (Peek() == ' ' || Peek() == '\t' || Peek() == '\n' || Peek() == '\r')) {
      ++place_;
    }
  }

  void ParseValue(int depth) {
    SkipSpace();
    switch (Peek()) {
      case '{':
        return ParseContainer(JsonKind::kObject, '}', depth);
      case '[':
        return ParseContainer(JsonKind::kArray, ']', depth);
      case '"':
        return ParseString();
      case 'n':
        return ParseWord("null", JsonKind::kNull);
      case 't':
        return ParseWord("true", JsonKind::kTrue);
      case 'f':
        return ParseWord("false", JsonKind::kFalse);
      default:
        return ParseNumber();
    }
  }

  void ParseWord(std::string_view word, JsonKind kind) {
    if (json_.substr(place_, word.size()) != word) {
      Fail("expected a value");
    }
    place_ += word.size();
    document_.nodes_.push_back({kind, 0, 0});
  }

  void ParseContainer(JsonKind kind, char end, int depth) {
    if (depth == kDeepestJson) {
      Fail("nested deeper than " + std::to_string(kDeepestJson) + " levels");
    }
    const size_t start = place_++;
    const size_t index = document_.nodes_.size();
    document_.nodes_.push_back({kind, 0, 0});
    uint32_t count = 0;
    SkipSpace();
    if (!Take(end)) {
      do {
        if (kind == JsonKind::kObject) {
          ParseKey();
        }
        ParseValue(depth + 1);
        ++count;
        SkipSpace();
      } while (Take(','));
      if (!Take(end)) {
        Fail(std::string("expected ',' or '") + end + "'");
      }
    }
    Node& node = document_.nodes_[index];
    node.count = count;
    node.place = static_cast<uint32_t>(document_.nodes_.size());
    if (kind == JsonKind::kObject && count > 1) {
      RefuseRepeatedKeys(static_cast<uint32_t>(index), start);
    }
  }

  void ParseKey() {
    SkipSpace();
    if (Peek() != '"') {
      Fail("expected a key in double quotes");
    }
    ParseString();
    SkipSpace();
    if (!Take(':')) {
      Fail("expected ':'");
    }
  }

  void RefuseRepeatedKeys(uint32_t index, size_t start) {
    const JsonValue object(&document_, index);
    std::vector<std::string_view> keys;
    keys.reserve(object.size());
    JsonValue key = object.First();
    for (size_t member = 0; member < object.size(); ++member, key = key.Next().Next()) {
      keys.push_back(key.text());
    }
    std::sort(keys.begin(), keys.end());
    const auto repeated = std::adjacent_find(keys.begin(), keys.end());
    if (repeated != keys.end()) {
      place_ = start;
      Fail("the object that begins here repeats the key \"" +
           std::string(Beginning(*repeated, 100)) + "\"");
    }
  }

  bool TakeDigits() {
    const size_t start = place_;
    while (Peek() >= '0' && Peek() <= '9') {
      ++place_;
    }
    return place_ != start;
  }

  void ParseNumber() {
    const size_t start = place_;
    Take('-');
    if (!Take('0') && !TakeDigits()) {
      Fail("expected a value");
    }
    if (Take('.') && !TakeDigits()) {
      Fail("expected a digit after '.'");
    }
    if (Take('e') || Take('E')) {
      if (!Take('+')) {
        Take('-');
      }
      if (!TakeDigits()) {
        Fail("expected a digit in the exponent");
      }
    }
    AddText(JsonKind::kNumber, document_.text_.size(), json_.substr(start, place_ - start));
  }

  // Adds a node for the text that begins at `start`, after appending to it.
  void AddText(JsonKind kind, size_t start, std::string_view text) {
    document_.text_.append(text);
    document_.nodes_.push_back({kind, static_cast<uint32_t>(document_.text_.size() - start),
                                static_cast<uint32_t>(start)});
  }

  void ParseString() {
    ++place_;
    const size_t start = document_.text_.size();
    for (;;) {
      const size_t run = place_;
      while (!AtEnd() && Peek() != '"' && Peek() != '\\' && static_cast<uint8_t>(Peek()) >= 0x20) {
        ++place_;
      }
      const std::string_view text = json_.substr(run, place_ - run);
      const size_t valid = ValidUtf8Prefix(text);
      if (valid != text.size()) {
        place_ = run + valid;
        Fail("not UTF-8");
      }
      document_.text_.append(text);
      if (AtEnd()) {
        Fail("the text ends inside a string");
      }
      if (Take('"')) {
        return AddText(JsonKind::kString, start, {});
      }
      if (!Take('\\')) {
        Fail("a control character inside a string");
      }
      ParseEscape();
    }
  }

  void ParseEscape() {
    static constexpr std::string_view kNames = "\"\\/bfnrt";
    static constexpr std::string_view kCharacters = "\"\\/\b\f\n\r\t";
    if (Take('u')) {
      uint32_t code_point = ParseHexadecimal();
      const size_t after = place_;
      if (code_point >= 0xD800 && code_point < 0xDC00 && Take('\\') && Take('u')) {
        const uint32_t low = ParseHexadecimal();
        if (low >= 0xDC00 && low < 0xE000) {
          code_point = 0x10000 + ((code_point - 0xD800) << 10) + (low - 0xDC00);
        }
      }
      if (code_point >= 0xD800 && code_point < 0xE000) {
        place_ = after;
        Fail("a surrogate escape without its partner");
      }
      AppendUtf8(code_point, &document_.text_);
      return;
    }
    const size_t name = AtEnd() ? std::string_view::npos : kNames.find(Peek());
    if (name == std::string_view::npos) {
      Fail("an unknown escape");
    }
    document_.text_.push_back(kCharacters[name]);
    ++place_;
  }

  uint32_t ParseHexadecimal() {
    static constexpr std::string_view kDigits = "0123456789abcdefABCDEF";
    uint32_t value = 0;
    for (int count = 0; count < 4; ++count, ++place_) {
      const size_t digit = kDigits.find(Peek());
      if (digit == std::string_view::npos) {
        Fail("expected four hexadecimal digits");
      }
      value = value << 4 | static_cast<uint32_t>(digit < 16 ? digit : digit - 6);
    }
    return value;
  }

  std::string_view json_;
  JsonDocument& document_;
  size_t place_ = 0;
};

JsonDocument::JsonDocument(std::string_view json) { JsonParser(json, this).Parse(); }

JsonKind JsonValue::kind() const { return document_->nodes_[index_].kind; }

std::string_view JsonValue::text() const {
  const JsonDocument::Node& node = document_->nodes_[index_];
  if (node.kind != JsonKind::kString && node.kind != JsonKind::kNumber) {
    return {};
  }
  return std::string_view(document_->text_).substr(node.place, node.count);
}

size_t JsonValue::size() const {
  return IsArray() || IsObject() ? document_->nodes_[index_].count : 0;
}

JsonValue JsonValue::Next() const {
  return JsonValue(document_,
                   IsArray() || IsObject() ? document_->nodes_[index_].place : index_ + 1);
}

bool JsonValue::Find(std::string_view key, JsonValue* value) const {
  if (!IsObject()) {
    return false;
  }
  JsonValue name = First();
  for (size_t member = 0; member < size(); ++member, name = name.Next().Next()) {
    if (name.text() == key) {
      *value = name.Next();
      return true;
    }
  }
  return false;
}

bool JsonValue::ReadInteger(uint32_t most, uint32_t* result) const {
  uint64_t value = 0;
  for (const char character : text()) {
    if (character < '0' || character > '9') {
      return false;
    }
    value = value * 10 + static_cast<uint64_t>(character - '0');
    if (value > most) {
      return false;
    }
  }
  if (kind() != JsonKind::kNumber) {
    return false;
  }
  *result = static_cast<uint32_t>(value);
  return true;
}

}  // namespace molkv
