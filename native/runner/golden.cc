#include "golden.h"

#include <nlohmann/json.hpp>

#include "record.h"
#include "runner_error.h"

namespace molkv::runner {
namespace {

constexpr int64_t kSchemaVersion = 1;

std::optional<std::string> OptionalText(Record& record, const char* name) {
  if (record.IsNull(name)) return std::nullopt;
  return record.Text(name);
}

GoldenLogits ReadLogits(Record record) {
  GoldenLogits logits;
  logits.token_ids = record.Integers("token_ids");
  logits.values = record.Numbers("values");
  logits.mean = record.Number("mean");
  logits.root_mean_square = record.Number("root_mean_square");
  record.Finish();
  if (logits.values.size() != logits.token_ids.size()) {
    record.Refuse("values", "has not as many elements as token_ids");
  }
  return logits;
}

void ReadSampled(Record record, GoldenCase* golden) {
  molkv_sampling& sampling = golden->sampling;
  sampling.struct_size = sizeof(sampling);
  sampling.temperature = record.Number("temperature");
  const uint64_t top_k = record.Unsigned("top_k");
  if (top_k > UINT32_MAX) record.Refuse("top_k", "is more than 4294967295");
  sampling.top_k = static_cast<uint32_t>(top_k);
  sampling.top_p = record.Number("top_p");
  sampling.min_p = record.Number("min_p");
  sampling.seed = record.Unsigned("seed");
  golden->sampled = record.Integers("token_ids");
  record.Finish();
}

GoldenCase ReadCase(Record record) {
  GoldenCase golden;
  golden.name = record.Text("name");
  golden.text = OptionalText(record, "text");
  golden.prompt_ids = record.Integers("prompt_ids");
  golden.logits_tolerance = record.Number("logits_tolerance");
  if (!(golden.logits_tolerance > 0)) record.Refuse("logits_tolerance", "is not above 0");
  golden.logits = ReadLogits(record.Object("logits"));
  golden.greedy = record.Integers("greedy");
  ReadSampled(record.Object("sampled"), &golden);
  golden.greedy_text = OptionalText(record, "greedy_text");
  record.Number("greedy_margin");
  record.Finish();
  return golden;
}

void CheckIds(const std::string& file, const std::vector<int64_t>& ids, int64_t vocabulary_size) {
  for (const int64_t id : ids) {
    if (id >= 0 && id < vocabulary_size) continue;
    throw RunnerError(file + ": token id " + std::to_string(id) +
                          " is outside the vocabulary, 0 to " + std::to_string(vocabulary_size - 1),
                      "graph and golden cases must come from one export");
  }
}

}  // namespace

Golden ReadGolden(const std::string& file, int64_t vocabulary_size) {
  const Json content = ReadJson(file);
  Record record(file, "", content);
  if (const int64_t version = record.Integer("schema_version"); version != kSchemaVersion) {
    throw RunnerError(file + ": schema_version is " + std::to_string(version) +
                          ", this runtime reads " + std::to_string(kSchemaVersion),
                      "export again");
  }
  Golden golden;
  for (Record& entry : record.Objects("cases")) golden.cases.push_back(ReadCase(entry));
  for (Record& entry : record.Objects("rows")) {
    golden.rows.push_back(
        {entry.Integer("token_id"), entry.Text("bytes_sha256"), entry.Text("dequantized_sha256")});
    entry.Finish();
  }
  record.Finish();
  if (golden.cases.empty()) throw RunnerError(file + ": cases is empty", "export again");
  for (const GoldenCase& each : golden.cases) {
    for (const auto* ids :
         {&each.prompt_ids, &each.logits.token_ids, &each.greedy, &each.sampled}) {
      CheckIds(file, *ids, vocabulary_size);
    }
  }
  for (const GoldenRow& row : golden.rows) CheckIds(file, {row.token_id}, vocabulary_size);
  return golden;
}

}  // namespace molkv::runner
