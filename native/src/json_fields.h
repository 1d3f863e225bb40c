// Reads the fields of JSON objects in a way that lets none go unnoticed.

#ifndef MOLKV_SRC_JSON_FIELDS_H_
#define MOLKV_SRC_JSON_FIELDS_H_

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "error.h"
#include "json.h"

namespace molkv {

// A value as messages show it: cut short, and of a container only its "type" or its size.
std::string Describe(const JsonValue& value);

// Refuses a field's value. `must` completes "and must be".
[[noreturn]] void RefuseField(molkv_status status, const std::string& path, const JsonValue& value,
                              const std::string& must);

// The fields of one object. Each is asked for by name; `Finish` refuses those that were not.
class JsonFields {
 public:
  // `path` is the object's place in the file, such as "model"; empty for the whole file.
  JsonFields(const JsonValue& object, std::string path);

  // "model.vocab" for "vocab".
  std::string PathOf(std::string_view name) const;

  // False where there is no such field, or it is null.
  bool Find(std::string_view name, JsonValue* value);

  // The field, which must be there and not null.
  JsonValue Get(std::string_view name);

  bool GetBoolean(std::string_view name);
  bool GetBoolean(std::string_view name, bool missing);
  std::string_view GetString(std::string_view name);
  uint32_t GetInteger(std::string_view name, uint32_t most);

  // Refuses any text but this one as unsupported.
  void Expect(std::string_view name, std::string_view text);

  // Knows a field that changes no result.
  void Ignore(std::string_view name) { asked_.push_back(name); }

  void Finish() const;

 private:
  JsonValue object_;
  std::string path_;
  std::vector<std::string_view> asked_;
};

}  // namespace molkv

#endif  // MOLKV_SRC_JSON_FIELDS_H_
