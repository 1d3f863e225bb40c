// Where each number of an expert row lies (docs/format.md, "Rows").

#ifndef MOLKV_SRC_ROW_LAYOUT_H_
#define MOLKV_SRC_ROW_LAYOUT_H_

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "molkv/molkv.h"

namespace molkv {

inline constexpr uint64_t kRowChecksumSize = 4;
inline constexpr uint64_t kPageSize = 4096;

// One array of a layer's part of a row.
struct Section {
  molkv_plane_kind kind;
  uint32_t dtype;   // molkv_data_type
  uint64_t offset;  // bytes from the start of the layer's part
  uint64_t size;    // bytes, padding not included
};

// Byte positions in a row. All layers' parts have the same size: layer l starts at l * layer_size.
// The token's input embedding, if rows carry one, follows the last layer.
struct RowLayout {
  std::vector<Section> sections;  // of every layer, those that are present, in the file's order
  uint64_t layer_size = 0;        // bytes, padding included
  uint64_t embedding_offset = 0;  // bytes from the start of the row
  uint64_t embedding_size = 0;    // bytes, padding not included; 0: rows carry none
  uint64_t row_size = 0;          // bytes that carry data, the CRC32C included
  uint64_t row_stride = 0;        // bytes from one row to the next

  // Validates the geometry and lays out its rows, with the least stride that the format allows and
  // without an embedding.
  static RowLayout Of(const molkv_geometry& geometry, const std::string& source);

  // The same with an embedding of a type, perhaps MOLKV_NONE, and a stride that a file states.
  static RowLayout Of(const molkv_geometry& geometry, uint32_t embedding_dtype, uint64_t row_stride,
                      const std::string& source);
};

// Bytes that the stride of rows of `row_size` bytes must be a multiple of.
uint64_t StrideAlignment(uint64_t row_size);

}  // namespace molkv

#endif  // MOLKV_SRC_ROW_LAYOUT_H_
