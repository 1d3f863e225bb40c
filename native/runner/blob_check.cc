#include "blob_check.h"

#include "runner_error.h"
#include "sha256.h"

namespace molkv::runner {
namespace {

std::string DataTypeName(int64_t dtype) {
  switch (dtype) {
    case MOLKV_NONE:
      return "none";
    case MOLKV_FLOAT32:
      return "float32";
    case MOLKV_FLOAT16:
      return "float16";
    case MOLKV_INT8:
      return "int8";
    case MOLKV_INT4:
      return "int4";
    default:
      return std::to_string(dtype);
  }
}

// One fact about a blob, and what the manifest says about it.
class Comparison {
 public:
  explicit Comparison(const std::string& file) : file_(file) {}

  void Text(const char* field, const std::string& actual, const std::string& expected) const {
    if (actual == expected) return;
    throw RunnerError(file_ + ": " + field + " is " + actual + ", the dense graph's is " + expected,
                      "graph and blob must come from one export");
  }

  void Number(const char* field, uint64_t actual, int64_t expected) const {
    Text(field, std::to_string(actual), std::to_string(expected));
  }

  void DataType(const char* field, uint32_t actual, int64_t expected) const {
    Text(field, DataTypeName(actual), DataTypeName(expected));
  }

 private:
  const std::string& file_;
};

}  // namespace

void CheckBlob(const molkv_blob& blob, const std::string& file, const Manifest& manifest) {
  molkv_blob_info info;
  molkv_blob_get_info(&blob, &info);
  const molkv_geometry& rows = info.geometry;
  const ModelEntry& model = manifest.model;
  const bool keys = model.architecture == "molkv";
  const bool half = manifest.expert_precision == "f16";
  const int64_t key_dtype = int64_t{half ? MOLKV_FLOAT16 : MOLKV_INT8};
  const bool packed = manifest.expert_precision == "int4";
  const int64_t value_dtype = packed ? int64_t{MOLKV_INT4} : key_dtype;
  const Comparison compare(file);
  compare.Text("identity", Hexadecimal(info.identity, sizeof(info.identity)), manifest.identity);
  compare.Number("vocabulary_size", info.vocabulary_size, model.vocab_size);
  compare.Number("layers", rows.layers, model.num_hidden_layers);
  compare.Number("experts", rows.experts, model.num_experts);
  compare.Number("key_heads", rows.key_heads, keys ? model.expert_query_heads : 0);
  compare.Number("key_size", rows.key_size, keys ? model.expert_key_size : 0);
  compare.Number("value_size", rows.value_size, model.hidden_size);
  compare.DataType("key_dtype", rows.key_dtype, keys ? key_dtype : int64_t{MOLKV_NONE});
  compare.DataType("value_dtype", rows.value_dtype, value_dtype);
  const bool stored = manifest.embedding_precision != "none";
  compare.DataType("embedding_dtype", molkv_blob_embedding_dtype(&blob),
                   stored ? int64_t{MOLKV_FLOAT16} : int64_t{MOLKV_NONE});
}

}  // namespace molkv::runner
