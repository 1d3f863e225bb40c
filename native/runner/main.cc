// molkv-run: the device-side reference program. A bundle and a prompt become text, with nothing but
// libmolkv's C ABI and a graph engine: ONNX Runtime or ExecuTorch.

#include <algorithm>
#include <cfloat>
#include <cstdio>
#include <exception>
#include <iostream>
#include <memory>
#include <new>
#include <nlohmann/json.hpp>
#include <string>

#include "backend.h"
#include "bundle.h"
#include "dense_graph.h"
#include "file_content.h"
#include "generation.h"
#include "logits_file.h"
#include "options.h"
#include "parity_ladder.h"
#include "runner_error.h"
#include "session.h"
#include "statistics.h"
#include "text_codec.h"

namespace molkv::runner {
namespace {

constexpr int kDone = 0;
constexpr int kFailed = 1;
constexpr int kBadInput = 2;
constexpr int kDefect = 3;
constexpr size_t kLongestPrompt = size_t{64} << 20;

// A bundle with everything that runs it, in the order in which the parts depend on each other.
struct Model {
  explicit Model(const Options& options)
      : bundle(options.bundle),
        tokenizer(bundle.OpenTokenizer()),
        backend(ChooseBackend(options, bundle.manifest())),
        graph(OpenGraph(bundle, backend, options)),
        blob(bundle.OpenExperts()) {}

  Bundle bundle;
  MolkvHandle<molkv_tokenizer> tokenizer;
  std::string backend;
  std::unique_ptr<DenseGraph> graph;
  MolkvHandle<molkv_blob> blob;
};

void PrintJson(const nlohmann::ordered_json& content) {
  std::cout << content.dump(2, ' ', false, nlohmann::json::error_handler_t::replace) << std::endl;
}

std::vector<int64_t> PromptIds(const Options& options, const Model& model, std::string* text) {
  if (options.ids) return *options.ids;
  *text = options.prompt ? *options.prompt : FileContent(*options.prompt_file, kLongestPrompt);
  if (model.tokenizer == nullptr) {
    throw RunnerError(options.bundle + ": has no tokenizer, so it takes ids, not text",
                      "pass --ids, or export with a tokenizer");
  }
  return Encode(*model.tokenizer, *text);
}

int RunGolden(const Options& options, const Model& model, DenseGraph& graph) {
  model.bundle.VerifyExperts();
  const LadderParts parts = {graph, model.blob.get(), model.tokenizer.get(), options.chunk,
                             model.bundle.Backend(model.backend)};
  bool passed = true;
  auto rungs = nlohmann::ordered_json::array(), others = nlohmann::ordered_json::array();
  ClimbParityLadder(parts, model.bundle.LoadGolden(), [&](const Rung& rung) {
    if (!rung.comparable) {
      others.push_back({{"name", rung.name}, {"detail", rung.detail}});
      if (!options.json) {
        std::printf("      %-36s not comparable: %s\n", rung.name.c_str(), rung.detail.c_str());
      }
      return;
    }
    passed = passed && rung.passed();
    // JSON has no infinity; it means as wrong as can be.
    rungs.push_back({{"name", rung.name},
                     {"passed", rung.passed()},
                     {"figure", std::min(rung.figure, DBL_MAX)},
                     {"limit", rung.limit},
                     {"at_least", false},
                     {"detail", rung.detail}});
    if (options.json) return;
    std::printf("%s  %-36s %9.3g <= %-9.3g %s\n", rung.passed() ? "pass" : "FAIL",
                rung.name.c_str(), rung.figure, rung.limit, rung.detail.c_str());
  });
  if (options.json) {
    PrintJson({{"backend", model.backend},
               {"passed", passed},
               {"rungs", rungs},
               {"not_comparable", others}});
  } else {
    const std::string rest =
        others.empty() ? "" : ", " + std::to_string(others.size()) + " rungs not comparable";
    std::printf("parity: %s%s\n", passed ? "passed" : "FAILED", rest.c_str());
  }
  return passed ? kDone : kFailed;
}

// Prints text as it comes, or ids where ids were given; with --json all of it at the end.
int RunPrompt(const Options& options, const Model& model, DenseGraph& graph, double load_seconds) {
  Session session(graph, model.blob.get(), options.chunk);
  std::string prompt;
  const std::vector<int64_t> prompt_ids = PromptIds(options, model, &prompt);
  if (!options.logits.empty()) {
    WriteLogits(session, prompt_ids, options.logits);
    return kDone;
  }
  GenerationOptions generation = {options.max_new_tokens, options.sampling, -1};
  if (model.tokenizer != nullptr) generation.stop_id = EndOfText(*model.tokenizer);
  if (!options.json) std::cout << prompt << std::flush;

  std::string text;
  std::vector<int64_t> ids;
  Generate(session, model.tokenizer.get(), prompt_ids, generation,
           [&](int64_t token_id, std::string_view part) {
             text += part;
             ids.push_back(token_id);
             if (options.json) return;
             if (options.ids) {
               std::cout << token_id << ' ' << std::flush;
             } else {
               std::cout << part << std::flush;
             }
           });

  Statistics statistics = session.statistics();
  statistics.load_ms = 1e3 * load_seconds;
  if (options.json) {
    PrintJson({{"text", text}, {"ids", ids}, {"stats", statistics.ToJson()}});
  } else {
    std::cout << std::endl;
    std::cerr << statistics.ToText();
  }
  return kDone;
}

int Run(int argc, char** argv) {
  if (molkv_abi_version() != MOLKV_ABI_VERSION) {
    throw RunnerError("libmolkv has ABI version " + std::to_string(molkv_abi_version()) +
                          ", this program was built for " + std::to_string(MOLKV_ABI_VERSION),
                      "install program and library together");
  }
  const std::optional<Options> options = ParseOptions(argc, argv);
  if (!options) return kDone;
  double load_seconds = 0;
  const Stopwatch loading(&load_seconds);
  Model model(*options);
  const double loaded_after = loading.Elapsed();
  const int code = options->golden ? RunGolden(*options, model, *model.graph)
                                   : RunPrompt(*options, model, *model.graph, loaded_after);
  if (!std::cout || std::fflush(stdout) != 0) {
    throw RunnerError("standard output cannot be written", "check where it goes");
  }
  return code;
}

// Prints one line, whatever a hostile file brought into the message.
int Fail(std::string message, int code) {
  std::replace_if(
      message.begin(), message.end(), [](unsigned char c) { return c < 0x20 || c == 0x7F; }, ' ');
  std::cerr << "molkv-run: " << message << std::endl;
  return code;
}

}  // namespace
}  // namespace molkv::runner

int main(int argc, char** argv) {
  using namespace molkv::runner;
  try {
    return Run(argc, argv);
  } catch (const RunnerError& error) {
    return Fail(error.what(), kBadInput);
  } catch (const std::bad_alloc&) {
    return Fail("not enough memory (close other programs, or use a smaller model)", kBadInput);
  } catch (const std::exception& error) {
    return Fail(std::string("internal error: ") + error.what() + " (please report it)", kDefect);
  }
}
