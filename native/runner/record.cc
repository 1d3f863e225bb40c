#include "record.h"

#include <nlohmann/json.hpp>
#include <utility>

#include "file_content.h"
#include "runner_error.h"

namespace molkv::runner {
namespace {

constexpr size_t kLargestFile = size_t{64} << 20;
constexpr char kFix[] = "copy the bundle again, or export it with this version";

}  // namespace

Json ReadJson(const std::string& file) {
  const std::string content = FileContent(file, kLargestFile);
  try {
    return Json::parse(content);
  } catch (const Json::parse_error& error) {
    throw RunnerError(file + ": is not JSON at byte " + std::to_string(error.byte), kFix);
  }
}

std::string Quoted(const std::string& text) {
  const std::string escaped = Json(text).dump(-1, ' ', true, Json::error_handler_t::replace);
  return "'" + escaped.substr(1, escaped.size() - 2) + "'";
}

std::string Shown(const Json& value) {
  if (value.is_structured()) return value.type_name();
  const std::string text = value.dump(-1, ' ', true, Json::error_handler_t::replace);
  return text.size() <= 80 ? text : text.substr(0, 77) + "...";
}

Record::Record(std::string file, std::string place, const Json& object)
    : file_(std::move(file)), place_(std::move(place)), object_(object) {
  if (!object.is_object()) {
    const std::string what = place_.empty() ? "the content" : place_;
    throw RunnerError(file_ + ": " + what + " is " + Shown(object) + ", expected an object", kFix);
  }
}

int64_t Record::Integer(const char* name) {
  const Json& field = Field(name);
  const bool fits =
      field.is_number_unsigned() ? field.get<uint64_t>() <= INT64_MAX : field.is_number_integer();
  if (!fits) Refuse(name, "is " + Shown(field) + ", expected an integer");
  return field.get<int64_t>();
}

uint64_t Record::Unsigned(const char* name) {
  const Json& field = Field(name);
  if (!field.is_number_unsigned()) {
    Refuse(name, "is " + Shown(field) + ", expected an integer from 0");
  }
  return field.get<uint64_t>();
}

double Record::Number(const char* name) {
  const Json& field = Field(name);
  if (!field.is_number()) Refuse(name, "is " + Shown(field) + ", expected a number");
  return field.get<double>();
}

bool Record::Boolean(const char* name) {
  const Json& field = Field(name);
  if (!field.is_boolean()) Refuse(name, "is " + Shown(field) + ", expected true or false");
  return field.get<bool>();
}

std::string Record::Text(const char* name) {
  const Json& field = Field(name);
  if (!field.is_string()) Refuse(name, "is " + Shown(field) + ", expected text");
  return field.get<std::string>();
}

std::vector<int64_t> Record::Integers(const char* name) {
  std::vector<int64_t> integers;
  for (const Json& value : List(name)) {
    if (!value.is_number_integer() ||
        (value.is_number_unsigned() && value.get<uint64_t>() > INT64_MAX)) {
      Refuse(name, "holds " + Shown(value) + ", expected integers");
    }
    integers.push_back(value.get<int64_t>());
  }
  return integers;
}

std::vector<double> Record::Numbers(const char* name) {
  std::vector<double> numbers;
  for (const Json& value : List(name)) {
    if (!value.is_number()) Refuse(name, "holds " + Shown(value) + ", expected numbers");
    numbers.push_back(value.get<double>());
  }
  return numbers;
}

std::vector<std::string> Record::Texts(const char* name) {
  std::vector<std::string> texts;
  for (const Json& value : List(name)) {
    if (!value.is_string()) Refuse(name, "holds " + Shown(value) + ", expected texts");
    texts.push_back(value.get<std::string>());
  }
  return texts;
}

Record Record::Object(const char* name) { return Record(file_, Place(name), Field(name)); }

std::vector<Record> Record::Objects(const char* name) {
  std::vector<Record> objects;
  for (const Json& value : List(name)) {
    objects.emplace_back(file_, Place(name) + "[" + std::to_string(objects.size()) + "]", value);
  }
  return objects;
}

bool Record::IsNull(const char* name) { return Field(name).is_null(); }

bool Record::Has(const char* name) const { return object_.contains(name); }

std::vector<std::string> Record::Names() const {
  std::vector<std::string> names;
  for (const auto& item : object_.items()) names.push_back(item.key());
  return names;
}

void Record::Finish() const {
  for (const auto& item : object_.items()) {
    if (read_.count(item.key()) != 0) continue;
    const std::string quoted = Quoted(item.key());
    const std::string place = place_.empty() ? "" : place_ + ": ";
    throw RunnerError(
        file_ + ": " + place + "unknown field `" + quoted.substr(1, quoted.size() - 2) + "`", kFix);
  }
}

void Record::Refuse(const char* name, const std::string& problem) const {
  throw RunnerError(file_ + ": " + Place(name) + " " + problem, kFix);
}

const Json& Record::Field(const char* name) {
  const auto found = object_.find(name);
  if (found == object_.end()) {
    throw RunnerError(file_ + ": missing required field `" + Place(name) + "`", kFix);
  }
  read_.insert(name);
  return *found;
}

const Json& Record::List(const char* name) {
  const Json& field = Field(name);
  if (!field.is_array()) Refuse(name, "is " + Shown(field) + ", expected a list");
  return field;
}

std::string Record::Place(const char* name) const {
  return place_.empty() ? name : place_ + "." + name;
}

}  // namespace molkv::runner
