// A JSON object that is read strictly: every field has its type, and none is unknown.

#ifndef MOLKV_RUNNER_RECORD_H_
#define MOLKV_RUNNER_RECORD_H_

#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <set>
#include <string>
#include <vector>

namespace molkv::runner {

using Json = nlohmann::json;

// Parses a JSON file. Throws RunnerError if it cannot be read or is no JSON.
Json ReadJson(const std::string& file);

// Text in quotes, with control characters written as escapes.
std::string Quoted(const std::string& text);

// A value for a message: never longer than a line, nor deeper than its outside.
std::string Shown(const Json& value);

// All functions throw RunnerError where the content is not what they return. The JSON must outlive
// the record.
class Record {
 public:
  // `file` and `place`, such as "cases[0].logits" or "" for the whole, are for messages.
  Record(std::string file, std::string place, const Json& object);

  // Each reads one required field.
  int64_t Integer(const char* name);
  uint64_t Unsigned(const char* name);
  double Number(const char* name);
  bool Boolean(const char* name);
  std::string Text(const char* name);
  std::vector<int64_t> Integers(const char* name);
  std::vector<double> Numbers(const char* name);
  std::vector<std::string> Texts(const char* name);
  Record Object(const char* name);
  std::vector<Record> Objects(const char* name);

  // Whether a required field is null; then it counts as read.
  bool IsNull(const char* name);
  // Whether there is such a field.
  bool Has(const char* name) const;

  // The names of all fields, for an object whose keys are free.
  std::vector<std::string> Names() const;

  // Refuses fields that were not read.
  void Finish() const;

  // An error about a field.
  [[noreturn]] void Refuse(const char* name, const std::string& problem) const;

 private:
  const Json& Field(const char* name);
  const Json& List(const char* name);
  std::string Place(const char* name) const;

  std::string file_;
  std::string place_;
  const Json& object_;
  std::set<std::string> read_;
};

}  // namespace molkv::runner

#endif  // MOLKV_RUNNER_RECORD_H_
