#include "options.h"

#include <CLI/CLI.hpp>
#include <algorithm>
#include <charconv>
#include <climits>
#include <iostream>
#include <thread>

#include "record.h"
#include "runner_error.h"

namespace molkv::runner {
namespace {

std::vector<int64_t> ParseIds(const std::string& text) {
  std::vector<int64_t> ids;
  const auto separates = [](char c) { return c == ',' || c == ' '; };
  const char* at = text.data();
  const char* const end = at + text.size();
  while ((at = std::find_if_not(at, end, separates)) != end) {
    const char* const next = std::find_if(at, end, separates);
    int64_t id = 0;
    const auto [stop, failure] = std::from_chars(at, next, id);
    if (failure != std::errc() || stop != next) {
      throw RunnerError("--ids is " + Quoted(text), "write integers, as in 12,7,99");
    }
    ids.push_back(id);
    at = next;
  }
  return ids;
}

int AvailableCores() { return std::max(1u, std::thread::hardware_concurrency()); }

}  // namespace

std::optional<Options> ParseOptions(int argc, char** argv) {
  Options options;
  std::string ids, engine = "native";
  CLI::App app("Continues a prompt with a molkv bundle, expert rows read from file as it goes.",
               "molkv-run");
  app.set_version_flag("--version", "molkv-run " MOLKV_VERSION);
  app.footer("Exit codes: 0 done, 1 --golden failed, 2 wrong usage or bad input, 3 a defect.");
  app.add_option("bundle", options.bundle, "The folder that `molkv export` wrote")->required();

  auto* prompt = app.add_option_group("Prompt", "one of");
  prompt->add_option("--prompt", options.prompt, "The text to continue");
  prompt->add_option("--prompt-file", options.prompt_file, "A file with the text, taken as it is");
  auto* ids_option = prompt->add_option("--ids", ids, "Token ids to continue, as in 12,7,99");
  prompt->add_flag("--golden", options.golden,
                   "Climb the parity ladder over the bundle's golden cases instead");
  prompt->require_option(1);

  auto* sampling = app.add_option_group("Sampling");
  sampling->add_option("--max-new-tokens,--max-tokens", options.max_new_tokens)
      ->check(CLI::Range(1, INT_MAX))
      ->capture_default_str();
  sampling->add_option("--temperature", options.sampling.temperature, "0 takes the best token")
      ->capture_default_str();
  sampling->add_option("--top-k", options.sampling.top_k, "Keep the k best; 0 keeps all")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  sampling->add_option("--top-p", options.sampling.top_p, "Keep the best up to this mass")
      ->capture_default_str();
  sampling->add_option("--min-p", options.sampling.min_p, "Keep those above this share of the best")
      ->capture_default_str();
  sampling->add_option("--seed", options.sampling.seed)
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();

  auto* engines = app.add_option_group("Engine");
  options.threads = AvailableCores();
  engines->add_option("--threads", options.threads, "Of the graph engine")
      ->check(CLI::Range(1, 1024))
      ->capture_default_str();
  engines->add_option("--chunk", options.chunk, "Prompt tokens that run at once")
      ->check(CLI::Range(1, INT_MAX))
      ->capture_default_str();
  engines
      ->add_option("--backend", options.backend,
                   "Whose dense graph to run; onnx where the bundle has it")
      ->check(CLI::IsMember({"onnx", "executorch"}));
  engines->add_option("--onnxruntime", options.onnxruntime,
                      "libonnxruntime; or in the environment variable MOLKV_ONNXRUNTIME");
  engines->add_option("--operator-library", options.operator_library,
                      "onnx: libmolkv_ort, by default the one beside this program; executorch: a "
                      "library that registers operators this program is not linked with");
  engines->add_option("--engine", engine, "stock runs the operator from the ONNX graph file")
      ->check(CLI::IsMember({"native", "stock"}))
      ->capture_default_str();

  auto* output = app.add_option_group("Output");
  output->add_flag("--json", options.json, "One JSON document on standard output");
  output->add_option("--logits", options.logits,
                     "Write the prompt's logits, float32 [tokens, vocabulary], and stop");

  try {
    app.parse(argc, argv);
  } catch (const CLI::Success& answered) {  // --help, --version
    app.exit(answered);
    return std::nullopt;
  } catch (const CLI::ParseError& error) {
    throw RunnerError(error.what(), "molkv-run --help lists the options");
  }
  if (ids_option->count() != 0) options.ids = ParseIds(ids);
  options.stock = engine == "stock";
  options.program = argv[0];
  return options;
}

}  // namespace molkv::runner
