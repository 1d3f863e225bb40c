// golden.json: what every runtime must reproduce from a bundle (docs/graph.md, "golden.json").

#ifndef MOLKV_RUNNER_GOLDEN_H_
#define MOLKV_RUNNER_GOLDEN_H_

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "molkv/molkv.h"

namespace molkv::runner {

// The reference's logits after a prompt: the largest, and two sums over the whole vocabulary.
struct GoldenLogits {
  std::vector<int64_t> token_ids;
  std::vector<double> values;
  double mean = 0;
  double root_mean_square = 0;
};

struct GoldenCase {
  std::string name;
  std::optional<std::string> text;  // none where the bundle has no tokenizer
  std::vector<int64_t> prompt_ids;
  double logits_tolerance = 0;  // the largest difference from the reference that passes
  GoldenLogits logits;
  std::vector<int64_t> greedy;
  std::optional<std::string> greedy_text;
  molkv_sampling sampling = {};
  std::vector<int64_t> sampled;
};

struct GoldenRow {
  int64_t token_id = 0;
  std::string bytes_sha256;        // of the row without its padding
  std::string dequantized_sha256;  // of its vectors as float32: by layer keys, then values
};

struct Golden {
  std::vector<GoldenCase> cases;
  std::vector<GoldenRow> rows;
};

// Reads the file; every token id must lie below `vocabulary_size`. Throws RunnerError if it is
// missing, damaged, of another version or of another model.
Golden ReadGolden(const std::string& file, int64_t vocabulary_size);

}  // namespace molkv::runner

#endif  // MOLKV_RUNNER_GOLDEN_H_
