#include "molkv_onnx_graph.h"

#include <algorithm>
#include <cstdio>
#include <memory>
#include <new>
#include <string>
#include <vector>

#include "../manifest.h"
#include "../onnx_graph.h"
#include "../runner_error.h"

struct molkv_onnx_graph {
  std::unique_ptr<molkv::runner::OnnxGraph> graph;
  int64_t vocabulary_size = 0;
  size_t context = 0;
  bool experts = false;
  bool takes_embeddings = false;
};

namespace {

using molkv::runner::BackendEntry;
using molkv::runner::Manifest;
using molkv::runner::OnnxGraph;
using molkv::runner::RunnerError;

// Fills an error. A message that is too long is cut, never inside a character.
molkv_status Report(molkv_error* error, molkv_status status, const char* message) {
  if (error == nullptr) return status;
  error->status = status;
  size_t size = std::snprintf(error->message, sizeof(error->message), "%s", message);
  if (size < sizeof(error->message)) return status;
  size = sizeof(error->message) - 1;
  const auto continues = [](char byte) { return (byte & 0xC0) == 0x80; };
  while (size > 0 && continues(message[size])) --size;
  error->message[size] = '\0';
  return status;
}

// Runs the body of a C function and turns what it throws into a status and a message.
template <typename Body>
molkv_status Guard(molkv_error* error, Body&& body) noexcept {
  try {
    body();
    return MOLKV_OK;
  } catch (const RunnerError& failure) {
    return Report(error, MOLKV_FORMAT, failure.what());
  } catch (const std::bad_alloc&) {
    return Report(error, MOLKV_OUT_OF_MEMORY, "not enough memory (close other programs)");
  } catch (const std::exception& failure) {
    return Report(error, MOLKV_FORMAT, failure.what());
  }
}

std::string TextOf(const char* text) { return text == nullptr ? "" : text; }

std::unique_ptr<molkv_onnx_graph> Open(const molkv_onnx_graph_options& options) {
  const std::string folder = options.bundle;
  const Manifest manifest = molkv::runner::ReadManifest(folder);
  const auto entry = manifest.backends.find("onnx");
  if (entry == manifest.backends.end()) {
    throw RunnerError(folder + ": has no onnx graph", "export with --backend onnx");
  }
  const molkv::runner::OnnxGraphOptions graph_options = {
      folder + "/" + entry->second.graph,
      static_cast<int>(options.threads == 0 ? 1 : options.threads),
      TextOf(options.operator_library),
  };
  auto made = std::make_unique<molkv_onnx_graph>();
  made->graph = std::make_unique<OnnxGraph>(TextOf(options.onnxruntime), graph_options, manifest);
  made->vocabulary_size = manifest.model.vocab_size;
  made->context = static_cast<size_t>(manifest.model.max_position_embeddings);
  made->experts = manifest.model.architecture != "dense";
  made->takes_embeddings = manifest.embedding_precision != "none";
  return made;
}

}  // namespace

molkv_status molkv_onnx_graph_open(const molkv_onnx_graph_options* options,
                                   molkv_onnx_graph** graph, molkv_error* error) {
  if (options == nullptr || graph == nullptr || options->bundle == nullptr) {
    return Report(error, MOLKV_INVALID_ARGUMENT, "options, bundle or graph is NULL (pass all)");
  }
  if (options->struct_size < sizeof(*options)) {
    return Report(error, MOLKV_INVALID_ARGUMENT, "struct_size is too small (set it with sizeof)");
  }
  return Guard(error, [&] { *graph = Open(*options).release(); });
}

void molkv_onnx_graph_close(molkv_onnx_graph* graph) { delete graph; }

size_t molkv_onnx_graph_chunk(const molkv_onnx_graph* graph) {
  return graph == nullptr ? 0 : graph->graph->chunk();
}

molkv_status molkv_onnx_graph_run(molkv_onnx_graph* graph, const int64_t* token_ids,
                                  const float* embeddings, size_t count, int64_t position,
                                  const molkv_window* window, const float** logits,
                                  molkv_error* error) {
  if (graph == nullptr || token_ids == nullptr || logits == nullptr) {
    return Report(error, MOLKV_INVALID_ARGUMENT, "graph, token_ids or logits is NULL (pass all)");
  }
  if (graph->experts != (window != nullptr)) {
    return Report(error, MOLKV_INVALID_ARGUMENT,
                  "a window is needed where the model has experts, and only there");
  }
  if (graph->takes_embeddings != (embeddings != nullptr)) {
    return Report(error, MOLKV_INVALID_ARGUMENT,
                  "embeddings are needed where rows carry them, and only there");
  }
  if (count == 0 || position < 0 || static_cast<size_t>(position) > graph->context ||
      count > graph->context - static_cast<size_t>(position)) {
    return Report(error, MOLKV_OUT_OF_RANGE,
                  "no tokens, or more than the context holds (run at most the context)");
  }
  const auto outside = [&](int64_t id) { return id < 0 || id >= graph->vocabulary_size; };
  if (std::any_of(token_ids, token_ids + count, outside)) {
    return Report(error, MOLKV_OUT_OF_RANGE,
                  "a token id is outside the vocabulary (use the tokenizer of this bundle)");
  }
  return Guard(error, [&] {
    const std::vector<int64_t> last = {static_cast<int64_t>(count) - 1};
    *logits = graph->graph->Run({token_ids, count, embeddings}, position, window, last);
  });
}
