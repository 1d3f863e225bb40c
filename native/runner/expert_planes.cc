#include "expert_planes.h"

#include <utility>

namespace molkv::runner {

std::vector<ExpertPlane> ListExpertPlanes(const Manifest& manifest) {
  const ModelEntry& model = manifest.model;
  std::vector<ExpertPlane> planes;
  if (model.architecture == "dense") return planes;
  const bool keys = model.architecture == "molkv";
  const bool quantized = manifest.expert_precision != "f16";
  const bool packed = manifest.expert_precision == "int4";
  const molkv_data_type stored = quantized ? MOLKV_INT8 : MOLKV_FLOAT16;
  const int64_t experts = model.num_experts;
  const int64_t key_size = model.expert_query_heads * model.expert_key_size;
  for (uint32_t layer = 0; layer < model.num_hidden_layers; ++layer) {
    const auto add = [&](const char* name, molkv_plane_kind kind, molkv_data_type dtype,
                         std::vector<int64_t> shape) {
      planes.push_back(
          {std::string(name) + "." + std::to_string(layer), layer, kind, dtype, std::move(shape)});
    };
    if (keys) add("expert_keys", MOLKV_KEYS, stored, {0, experts, key_size});
    if (keys && quantized) add("expert_key_scales", MOLKV_KEY_SCALES, MOLKV_FLOAT32, {0, experts});
    if (packed) {  // two elements a byte, and a scale for each group
      add("expert_values", MOLKV_VALUES, MOLKV_INT4, {0, experts, model.hidden_size / 2});
      add("expert_value_scales", MOLKV_VALUE_SCALES, MOLKV_FLOAT16,
          {0, experts, model.hidden_size / MOLKV_INT4_GROUP});
      continue;
    }
    add("expert_values", MOLKV_VALUES, stored, {0, experts, model.hidden_size});
    if (quantized) add("expert_value_scales", MOLKV_VALUE_SCALES, MOLKV_FLOAT32, {0, experts});
  }
  return planes;
}

}  // namespace molkv::runner
