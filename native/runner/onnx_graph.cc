#include "onnx_graph.h"

#include <algorithm>
#include <new>
#include <utility>

#include "molkv_handles.h"
#include "runner_error.h"
#include "statistics.h"

namespace molkv::runner {
namespace {

constexpr auto kFloat = ort::ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT;
constexpr auto kInt64 = ort::ONNX_TENSOR_ELEMENT_DATA_TYPE_INT64;

std::string OfLayer(const char* name, size_t layer) {
  return std::string(name) + "." + std::to_string(layer);
}

ort::ONNXTensorElementDataType ElementType(molkv_data_type dtype) {
  if (dtype == MOLKV_INT8) return ort::ONNX_TENSOR_ELEMENT_DATA_TYPE_INT8;
  if (dtype == MOLKV_INT4) return ort::ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT8;
  return dtype == MOLKV_FLOAT16 ? ort::ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT16 : kFloat;
}

// Elements of a cache buffer; refuses more than memory can address, whatever their type.
size_t CacheElements(const std::string& file, const std::vector<int64_t>& shape) {
  size_t count = 1;
  for (const int64_t size : shape) {
    if (static_cast<size_t>(size) > PTRDIFF_MAX / sizeof(float) / count) {
      throw RunnerError(file + ": the self-attention cache needs more memory than there can be",
                        "export with a smaller context");
    }
    count *= static_cast<size_t>(size);
  }
  return count;
}

}  // namespace

OnnxGraph::OnnxGraph(const std::string& library, const OnnxGraphOptions& options,
                     const Manifest& manifest)
    : DenseGraph(manifest.model, static_cast<size_t>(manifest.model.max_position_embeddings)),
      runtime_(library),
      file_(options.file),
      cannot_run_(file_ + ": ONNX Runtime " + runtime_.version() + " cannot run it"),
      session_(LoadOnnxGraph(runtime_, options, manifest)),
      run_options_(runtime_.Make<ort::OrtRunOptions>(file_, &ort::OrtApi::CreateRunOptions)) {
  for (ExpertPlane& plane : ListExpertPlanes(manifest)) {
    const auto type = ElementType(plane.dtype);
    planes_.push_back({std::move(plane), type});
  }
  takes_embeddings_ = manifest.embedding_precision != "none";
  AllocateCache(manifest.backends.at("onnx").cache);
}

const float* OnnxGraph::Run(const NewTokens& tokens, int64_t position, const molkv_window* window,
                            const std::vector<int64_t>& logits_index) {
  const size_t count = tokens.count;
  const bool single = count == 1 && logits_index.size() == 1;
  std::unique_ptr<Step>& step = single ? decode_ : prefill_;
  if (step == nullptr || step->token_ids.size() != count ||
      step->logits_index.size() != logits_index.size()) {
    step = MakeStep(count, logits_index.size());
  }
  std::copy_n(tokens.ids, count, step->token_ids.begin());
  if (takes_embeddings_) {
    std::copy_n(tokens.embeddings, step->embeddings.size(), step->embeddings.begin());
  }
  std::copy(logits_index.begin(), logits_index.end(), step->logits_index.begin());
  step->position = position;
  // The view slides with every token, and is as cheap to bind anew as to look up.
  if (window != nullptr) BindPlanes(step->binding.get(), *window);
  const Stopwatch engine(engine_seconds_sum());
  runtime_.Call(cannot_run_, &ort::OrtApi::RunWithBinding, session_.get(), run_options_.get(),
                step->binding.get());
  return step->logits.data();
}

void OnnxGraph::AllocateCache(const std::string& precision) {
  if (precision != "fp32" && precision != "int8") {
    throw RunnerError("manifest.json: backends.onnx.cache is " + precision,
                      "export with fp32 or int8");
  }
  const bool quantized = precision == "int8";
  cache_type_ = quantized ? ort::ONNX_TENSOR_ELEMENT_DATA_TYPE_INT8 : kFloat;
  const int64_t head_size = model().hidden_size / model().num_attention_heads;
  cache_shape_ = {1, model().num_key_value_heads, model().max_position_embeddings, head_size};
  cache_bytes_ = CacheElements(file_, cache_shape_) * (quantized ? 1 : sizeof(float));
  for (int64_t i = 0; i < 2 * model().num_hidden_layers; ++i) {
    // calloc leaves pages untouched until a step writes them.
    cache_.emplace_back(std::calloc(cache_bytes_, 1));
    if (cache_.back() == nullptr) throw std::bad_alloc();
  }
}

std::unique_ptr<OnnxGraph::Step> OnnxGraph::MakeStep(size_t tokens, size_t logits_rows) {
  auto step = std::make_unique<Step>();
  step->token_ids.resize(tokens);
  step->logits_index.resize(logits_rows);
  step->logits.resize(logits_rows * static_cast<size_t>(model().vocab_size));
  step->binding =
      runtime_.Make<ort::OrtIoBinding>(file_, &ort::OrtApi::CreateIoBinding, session_.get());
  ort::OrtIoBinding* binding = step->binding.get();
  const auto bind_integers = [&](const char* name, int64_t* data, std::vector<int64_t> shape) {
    const auto bytes = static_cast<uint64_t>(shape.back()) * sizeof(int64_t);
    BindInput(binding, name, runtime_.Tensor(data, bytes, shape, kInt64).get());
  };
  const auto token_count = static_cast<int64_t>(tokens);
  const auto logits_count = static_cast<int64_t>(logits_rows);
  if (takes_embeddings_) {
    step->embeddings.resize(tokens * static_cast<size_t>(model().hidden_size));
    const auto embeddings =
        runtime_.Tensor(step->embeddings.data(), step->embeddings.size() * sizeof(float),
                        {1, token_count, model().hidden_size}, kFloat);
    BindInput(binding, "embeddings", embeddings.get());
  } else {
    bind_integers("input_ids", step->token_ids.data(), {1, token_count});
  }
  bind_integers("position", &step->position, {1});
  bind_integers("logits_index", step->logits_index.data(), {logits_count});
  if (!planes_.empty()) bind_integers("expert_start", &expert_start_, {1});
  const auto logits = runtime_.Tensor(step->logits.data(), step->logits.size() * sizeof(float),
                                      {1, logits_count, model().vocab_size}, kFloat);
  BindOutput(binding, "logits", logits.get());
  BindCache(binding);
  return step;
}

void OnnxGraph::BindCache(ort::OrtIoBinding* binding) {
  for (size_t i = 0; i < cache_.size(); ++i) {
    const auto tensor = runtime_.Tensor(cache_[i].get(), cache_bytes_, cache_shape_, cache_type_);
    const bool key = i % 2 == 0;
    BindInput(binding, OfLayer(key ? "past_key" : "past_value", i / 2), tensor.get());
    BindOutput(binding, OfLayer(key ? "present_key" : "present_value", i / 2), tensor.get());
  }
}

void OnnxGraph::BindPlanes(ort::OrtIoBinding* binding, const molkv_window& window) {
  for (PlaneInput& input : planes_) {
    ExpertPlane& wanted = input.plane;
    molkv_plane plane;
    CallMolkv(molkv_window_plane, &window, wanted.layer, wanted.kind, &plane);
    wanted.shape[0] = static_cast<int64_t>(plane.rows);
    const auto tensor =
        runtime_.Tensor(plane.data, plane.rows * plane.row_bytes, wanted.shape, input.type);
    // The binding holds the tensor for as long as it needs it.
    BindInput(binding, wanted.name, tensor.get());
  }
}

void OnnxGraph::BindInput(ort::OrtIoBinding* binding, const std::string& name,
                          const ort::OrtValue* value) {
  runtime_.Call(file_, &ort::OrtApi::BindInput, binding, name.c_str(), value);
}

void OnnxGraph::BindOutput(ort::OrtIoBinding* binding, const std::string& name,
                           const ort::OrtValue* value) {
  runtime_.Call(file_, &ort::OrtApi::BindOutput, binding, name.c_str(), value);
}

}  // namespace molkv::runner
