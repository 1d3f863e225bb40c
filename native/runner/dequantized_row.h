// A row's vectors as numbers, which proves that its bytes are understood.

#ifndef MOLKV_RUNNER_DEQUANTIZED_ROW_H_
#define MOLKV_RUNNER_DEQUANTIZED_ROW_H_

#include <cstdint>
#include <string>
#include <vector>

#include "molkv/molkv.h"

namespace molkv::runner {

// sha256, in hexadecimal, of a row's dequantized vectors as float32, little-endian: layer by layer
// keys, then values; last the input embedding, if rows carry it. `row` has the blob's row_stride
// bytes. Throws RunnerError.
std::string DequantizedSha256(const molkv_blob& blob, const std::vector<uint8_t>& row);

}  // namespace molkv::runner

#endif  // MOLKV_RUNNER_DEQUANTIZED_ROW_H_
