// A small strict JSON reader (RFC 8259) for files that nobody vouches for.
//
// Stricter than the RFC where two readers could understand a file differently: an object may not
// repeat a key, text must be valid UTF-8, and an escaped surrogate needs its partner. Depth and
// size are limited, so a hostile file cannot exhaust the stack or the 32-bit places below.

#ifndef MOLKV_SRC_JSON_H_
#define MOLKV_SRC_JSON_H_

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace molkv {

constexpr size_t kLargestJson = size_t{64} << 20;
constexpr int kDeepestJson = 64;

enum class JsonKind : uint8_t { kNull, kFalse, kTrue, kNumber, kString, kArray, kObject };

class JsonDocument;

// A value inside a document, which must outlive it. Cheap to copy.
class JsonValue {
 public:
  JsonKind kind() const;
  bool IsNull() const { return kind() == JsonKind::kNull; }
  bool IsString() const { return kind() == JsonKind::kString; }
  bool IsArray() const { return kind() == JsonKind::kArray; }
  bool IsObject() const { return kind() == JsonKind::kObject; }

  // A string's characters, or a number's digits as they were written.
  std::string_view text() const;

  // Elements of an array, or members of an object; 0 for anything else.
  size_t size() const;

  // Walks an array, or an object whose keys and values alternate:
  //   JsonValue item = array.First();
  //   for (size_t index = 0; index < array.size(); ++index, item = item.Next()) ...
  JsonValue First() const { return JsonValue(document_, index_ + 1); }
  JsonValue Next() const;

  // Looks for a member of an object.
  bool Find(std::string_view key, JsonValue* value) const;

  // Reads a number that was written as a plain integer of at most `most`, and nothing else.
  bool ReadInteger(uint32_t most, uint32_t* result) const;

 private:
  friend class JsonDocument;
  friend class JsonParser;

  JsonValue(const JsonDocument* document, uint32_t index) : document_(document), index_(index) {}

  const JsonDocument* document_;
  uint32_t index_;
};

// A parsed text. Values lie one after another in one array, a container before what it holds, so a
// vocabulary of a quarter of a million merges takes tens of megabytes and not hundreds.
class JsonDocument {
 public:
  // Throws Error with MOLKV_FORMAT, naming the byte where the text stops being JSON.
  explicit JsonDocument(std::string_view json);

  JsonDocument(const JsonDocument&) = delete;
  JsonDocument& operator=(const JsonDocument&) = delete;

  JsonValue Root() const { return JsonValue(this, 0); }

 private:
  friend class JsonValue;
  friend class JsonParser;

  struct Node {
    JsonKind kind;
    uint32_t count;  // bytes of text; elements or members of a container
    uint32_t place;  // of the text in `text_`; of the node after the container
  };

  std::vector<Node> nodes_;
  std::string text_;
};

}  // namespace molkv

#endif  // MOLKV_SRC_JSON_H_
