#include "parity_ladder.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <set>
#include <string_view>
#include <utility>

#include "dequantized_row.h"
#include "generation.h"
#include "session.h"
#include "sha256.h"
#include "text_codec.h"

namespace molkv::runner {
namespace {

constexpr size_t kChunks[] = {1, 7, 64};
// Activations that are rounded to int8 turn differences in the last bit into whole steps. In
// tolerances of float32, as the exporter's own ladder has it (docs/executorch.md, "Precision").
constexpr double kRoundedActivations = 2500;

constexpr char kLogits[] = "5 logits: recorded";
constexpr char kGreedy[] = "6 greedy tokens";
constexpr char kSampled[] = "6 sampled tokens";

// Infinity for NaN, which would otherwise compare as no difference at all.
double Difference(double ours, double theirs) {
  const double difference = std::abs(ours - theirs);
  return std::isnan(difference) ? std::numeric_limits<double>::infinity() : difference;
}

std::string Prompts(const Golden& golden) {
  return std::to_string(golden.cases.size()) + " prompts";
}

class Ladder {
 public:
  Ladder(const LadderParts& parts, const Golden& golden) : parts_(parts), golden_(golden) {}

  void Climb(const std::function<void(const Rung& rung)>& take) {
    if (parts_.blob != nullptr) {
      for (const Rung& rung : Rows()) take(rung);
    }
    take(Chunks());
    take(exact() ? RecordedLogits() : NotComparable(kLogits));
    if (parts_.tokenizer != nullptr) take(Tokenizer());
    for (const bool greedy : {true, false}) {
      take(exact() ? Tokens(greedy) : NotComparable(greedy ? kGreedy : kSampled));
    }
  }

 private:
  // Whether weights and cache are float32, as those were that gave the golden answers.
  bool exact() const { return parts_.entry.dense == "fp32" && parts_.entry.cache == "fp32"; }

  Rung NotComparable(const char* name) const {
    return {name, 0, 0,
            "dense weights are " + parts_.entry.dense + ", the self-attention cache is " +
                parts_.entry.cache +
                ", and the golden answers float32's: the exporter compared them with torch "
                "(molkv verify --checkpoint)",
            false};
  }

  // The golden rows' bytes, and the numbers that they stand for.
  std::vector<Rung> Rows() const {
    molkv_blob_info info;
    molkv_blob_get_info(parts_.blob, &info);
    std::vector<uint8_t> row(info.row_stride);
    double changed_bytes = 0, changed_numbers = 0;
    for (const GoldenRow& golden : golden_.rows) {
      uint32_t index = 0;
      size_t distinct = 0;
      CallMolkv(molkv_blob_read, parts_.blob, &golden.token_id, size_t{1}, row.data(), &index,
                &distinct);
      Sha256 digest;
      digest.Update(row.data(), info.row_size);
      changed_bytes += digest.Finish() != golden.bytes_sha256;
      changed_numbers += DequantizedSha256(*parts_.blob, row) != golden.dequantized_sha256;
    }
    const std::string detail = std::to_string(golden_.rows.size()) + " rows";
    return {{"1 row bytes: golden = reader", changed_bytes, 0, detail},
            {"2 dequantized rows: golden = reader", changed_numbers, 0, detail}};
  }

  // Prefill of the longest prompt, and of beginnings of it, in one chunk and in many.
  Rung Chunks() const {
    const GoldenCase& golden = *std::max_element(golden_.cases.begin(), golden_.cases.end(),
                                                 [](const GoldenCase& a, const GoldenCase& b) {
                                                   return a.prompt_ids.size() < b.prompt_ids.size();
                                                 });
    const size_t longest = golden.prompt_ids.size();
    const auto window = static_cast<size_t>(parts_.graph.model().expert_window);
    const double factor = exact() ? 1 : kRoundedActivations;
    Rung rung = {"4 prefill in chunks", 0, factor * golden.logits_tolerance, ""};
    for (const size_t length : std::set<size_t>{window, window + 1, longest / 2, longest}) {
      if (length == 0 || length > longest) continue;
      const std::vector<int64_t> ids(golden.prompt_ids.begin(),
                                     golden.prompt_ids.begin() + static_cast<ptrdiff_t>(length));
      const std::vector<float> whole = LogitsAfter(ids, length);
      for (const size_t chunk : kChunks) {
        const std::vector<float> parts = LogitsAfter(ids, chunk);
        for (size_t i = 0; i < whole.size(); ++i) {
          rung.figure = std::max(rung.figure, Difference(parts[i], whole[i]));
        }
      }
      rung.detail += (rung.detail.empty() ? "" : ", ") + std::to_string(length);
    }
    rung.detail += " tokens in chunks of 1, 7, 64";
    return rung;
  }

  // Fills the graph's self-attention cache with other ids: what an earlier run of these left there
  // would stand in for a write that is missing.
  void OverwriteCache(std::vector<int64_t> ids) const {
    Session session(parts_.graph, parts_.blob, parts_.chunk);
    for (int64_t& id : ids) id = (id + 1) % session.model().vocab_size;
    session.Prefill(ids);
  }

  std::vector<float> LogitsAfter(const std::vector<int64_t>& ids, size_t chunk) const {
    OverwriteCache(ids);
    Session session(parts_.graph, parts_.blob, chunk);
    const float* logits = session.Prefill(ids);
    return std::vector<float>(logits, logits + session.model().vocab_size);
  }

  // Of all prompts, the figure that is the largest part of its limit.
  Rung RecordedLogits() const {
    Rung worst = {kLogits, -1, 1, Prompts(golden_)};
    for (const GoldenCase& golden : golden_.cases) {
      const double figure = RecordedDistance(golden);
      if (figure / golden.logits_tolerance > worst.figure / worst.limit) {
        worst.figure = figure;
        worst.limit = golden.logits_tolerance;
      }
    }
    return worst;
  }

  double RecordedDistance(const GoldenCase& golden) const {
    const std::vector<float> logits = LogitsAfter(golden.prompt_ids, parts_.chunk);
    double sum = 0, squares = 0;
    for (const double logit : logits) {
      sum += logit;
      squares += logit * logit;
    }
    const auto count = static_cast<double>(logits.size());
    const GoldenLogits& recorded = golden.logits;
    double worst = std::max(Difference(sum / count, recorded.mean),
                            Difference(std::sqrt(squares / count), recorded.root_mean_square));
    for (size_t i = 0; i < recorded.values.size(); ++i) {
      const float ours = logits[static_cast<size_t>(recorded.token_ids[i])];
      worst = std::max(worst, Difference(ours, recorded.values[i]));
    }
    return worst;
  }

  // Whether texts become the recorded ids, and recorded ids the recorded texts.
  Rung Tokenizer() const {
    double changed = 0;
    for (const GoldenCase& golden : golden_.cases) {
      const bool encodes =
          !golden.text || Encode(*parts_.tokenizer, *golden.text) == golden.prompt_ids;
      changed += !encodes || Decode(*parts_.tokenizer, golden.greedy) != golden.greedy_text;
    }
    return {"6 tokenizer", changed, 0, Prompts(golden_)};
  }

  Rung Tokens(bool greedy) const {
    Session session(parts_.graph, parts_.blob, parts_.chunk);
    double changed = 0;
    size_t count = 0;
    for (const GoldenCase& golden : golden_.cases) {
      const std::vector<int64_t>& expected = greedy ? golden.greedy : golden.sampled;
      GenerationOptions options;
      options.max_new_tokens = expected.size();
      options.sampling =
          greedy ? molkv_sampling{sizeof(molkv_sampling), 0, 0, 1, 0, 0} : golden.sampling;
      std::vector<int64_t> generated;
      Generate(session, nullptr, golden.prompt_ids, options,
               [&](int64_t id, std::string_view) { generated.push_back(id); });
      changed += generated != expected;
      count += expected.size();
    }
    return {greedy ? kGreedy : kSampled, changed, 0,
            Prompts(golden_) + ", " + std::to_string(count) + " tokens"};
  }

  const LadderParts& parts_;
  const Golden& golden_;
};

}  // namespace

void ClimbParityLadder(const LadderParts& parts, const Golden& golden,
                       const std::function<void(const Rung& rung)>& take) {
  Ladder(parts, golden).Climb(take);
}

}  // namespace molkv::runner
