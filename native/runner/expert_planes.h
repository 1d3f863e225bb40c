// The planes of the expert window that a dense graph reads, in the order of its inputs.

#ifndef MOLKV_RUNNER_EXPERT_PLANES_H_
#define MOLKV_RUNNER_EXPERT_PLANES_H_

#include <cstdint>
#include <string>
#include <vector>

#include "manifest.h"
#include "molkv/molkv.h"

namespace molkv::runner {

struct ExpertPlane {
  std::string name;  // of the input, such as "expert_keys.0"
  uint32_t layer = 0;
  molkv_plane_kind kind = MOLKV_KEYS;
  molkv_data_type dtype = MOLKV_NONE;
  std::vector<int64_t> shape;  // the first dimension is the number of rows
};

// Layer by layer: keys, their scales, values, their scales; those that the model has. Empty without
// experts.
std::vector<ExpertPlane> ListExpertPlanes(const Manifest& manifest);

}  // namespace molkv::runner

#endif  // MOLKV_RUNNER_EXPERT_PLANES_H_
