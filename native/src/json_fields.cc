#include "json_fields.h"

#include <algorithm>
#include <utility>

#include "utf8.h"

namespace molkv {
namespace {

constexpr char kDamaged[] = " (copy the file anew, or save it again with the tokenizers library)";
constexpr char kUnsupported[] = " (use a byte-level BPE tokenizer without it)";

}  // namespace

std::string Describe(const JsonValue& value) {
  constexpr size_t kLongest = 80;
  switch (value.kind()) {
    case JsonKind::kNull:
      return "null";
    case JsonKind::kFalse:
      return "false";
    case JsonKind::kTrue:
      return "true";
    case JsonKind::kArray:
      return "an array of " + std::to_string(value.size());
    case JsonKind::kObject: {
      JsonValue type = value;
      return value.Find("type", &type) && type.IsString()
                 ? "an object of type " + Describe(type)
                 : "an object of " + std::to_string(value.size());
    }
    case JsonKind::kNumber:
    case JsonKind::kString:
      break;
  }
  std::string shown(value.text());
  if (shown.size() > kLongest) {
    shown.resize(ValidUtf8Prefix(shown.substr(0, kLongest)));
    shown += "...";
  }
  return value.IsString() ? "\"" + shown + "\"" : shown;
}

void RefuseField(molkv_status status, const std::string& path, const JsonValue& value,
                 const std::string& must) {
  throw Error(status, path + " is " + Describe(value) + ", and must be " + must +
                          (status == MOLKV_UNSUPPORTED ? kUnsupported : kDamaged));
}

JsonFields::JsonFields(const JsonValue& object, std::string path)
    : object_(object), path_(std::move(path)) {
  if (!object.IsObject()) {
    RefuseField(MOLKV_FORMAT, path_.empty() ? "the file" : path_, object, "an object");
  }
}

std::string JsonFields::PathOf(std::string_view name) const {
  return path_.empty() ? std::string(name) : path_ + "." + std::string(name);
}

bool JsonFields::Find(std::string_view name, JsonValue* value) {
  asked_.push_back(name);
  return object_.Find(name, value) && !value->IsNull();
}

JsonValue JsonFields::Get(std::string_view name) {
  JsonValue value = object_;
  if (!Find(name, &value)) {
    throw Error(MOLKV_FORMAT, PathOf(name) + " is missing" + kDamaged);
  }
  return value;
}

bool JsonFields::GetBoolean(std::string_view name) {
  const JsonValue value = Get(name);
  if (value.kind() != JsonKind::kTrue && value.kind() != JsonKind::kFalse) {
    RefuseField(MOLKV_FORMAT, PathOf(name), value, "true or false");
  }
  return value.kind() == JsonKind::kTrue;
}

bool JsonFields::GetBoolean(std::string_view name, bool missing) {
  JsonValue value = object_;
  return Find(name, &value) ? GetBoolean(name) : missing;
}

std::string_view JsonFields::GetString(std::string_view name) {
  const JsonValue value = Get(name);
  if (!value.IsString()) {
    RefuseField(MOLKV_FORMAT, PathOf(name), value, "a string");
  }
  return value.text();
}

uint32_t JsonFields::GetInteger(std::string_view name, uint32_t most) {
  const JsonValue value = Get(name);
  uint32_t result;
  if (!value.ReadInteger(most, &result)) {
    RefuseField(MOLKV_FORMAT, PathOf(name), value, "an integer from 0 to " + std::to_string(most));
  }
  return result;
}

void JsonFields::Expect(std::string_view name, std::string_view text) {
  const JsonValue value = Get(name);
  if (!value.IsString() || value.text() != text) {
    RefuseField(MOLKV_UNSUPPORTED, PathOf(name), value, "\"" + std::string(text) + "\"");
  }
}

void JsonFields::Finish() const {
  JsonValue name = object_.First();
  for (size_t member = 0; member < object_.size(); ++member, name = name.Next().Next()) {
    if (std::find(asked_.begin(), asked_.end(), name.text()) == asked_.end()) {
      throw Error(MOLKV_UNSUPPORTED, PathOf(Beginning(name.text(), 100)) + " is " +
                                         Describe(name.Next()) +
                                         ", and no such field is known here" + kUnsupported);
    }
  }
}

}  // namespace molkv
