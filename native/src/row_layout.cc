#include "row_layout.h"

#include <array>

#include "row_geometry.h"

namespace molkv {
namespace {

constexpr uint64_t kSectionAlignment = 4;
constexpr uint64_t kCacheLine = 64;
constexpr uint64_t kMaximumStride = 64ULL << 20;

uint64_t RoundUp(uint64_t size, uint64_t multiple) {
  return (size + multiple - 1) / multiple * multiple;
}

}  // namespace

uint64_t StrideAlignment(uint64_t row_size) {
  return row_size >= kPageSize ? kPageSize : kCacheLine;
}

RowLayout RowLayout::Of(const molkv_geometry& geometry, const std::string& source) {
  ValidateGeometry(geometry, source);
  struct Candidate {
    molkv_plane_kind kind;
    uint32_t dtype;
    uint64_t width;
  };
  const uint32_t key_scales = geometry.key_dtype == MOLKV_INT8 ? MOLKV_FLOAT32 : MOLKV_NONE;
  const uint64_t groups =
      geometry.value_group_size != 0 ? geometry.value_size / geometry.value_group_size : 0;
  const std::array<Candidate, 4> candidates = {{
      {MOLKV_KEYS, geometry.key_dtype, KeyWidth(geometry)},
      {MOLKV_VALUES, geometry.value_dtype, geometry.value_size},
      {MOLKV_KEY_SCALES, key_scales, 1},
      {MOLKV_VALUE_SCALES, geometry.scale_dtype, groups},
  }};
  RowLayout layout;
  for (const Candidate& candidate : candidates) {
    if (candidate.dtype == MOLKV_NONE) {
      continue;
    }
    const uint64_t size = DataBytes(candidate.dtype, geometry.experts * candidate.width);
    layout.sections.push_back({candidate.kind, candidate.dtype, layout.layer_size, size});
    layout.layer_size = RoundUp(layout.layer_size + size, kSectionAlignment);
  }
  layout.embedding_offset = geometry.layers * layout.layer_size;
  layout.row_size = layout.embedding_offset + kRowChecksumSize;
  layout.row_stride = RoundUp(layout.row_size, StrideAlignment(layout.row_size));
  return layout;
}

RowLayout RowLayout::Of(const molkv_geometry& geometry, uint32_t embedding_dtype,
                        uint64_t row_stride, const std::string& source) {
  RowLayout layout = Of(geometry, source);
  if (embedding_dtype != MOLKV_NONE && embedding_dtype != MOLKV_FLOAT16) {
    throw FormatError(source, "embedding_dtype", embedding_dtype,
                      "must be 0 (none) or 2 (float16)");
  }
  layout.embedding_size = DataBytes(embedding_dtype, geometry.value_size);
  layout.row_size += RoundUp(layout.embedding_size, kSectionAlignment);
  const uint64_t alignment = StrideAlignment(layout.row_size);
  if (row_stride < layout.row_size) {
    throw FormatError(source, "row_stride", row_stride,
                      "a row has " + std::to_string(layout.row_size) + " bytes");
  }
  if (row_stride % alignment != 0) {
    throw FormatError(source, "row_stride", row_stride,
                      "must be a multiple of " + std::to_string(alignment) + " for rows of " +
                          std::to_string(layout.row_size) + " bytes");
  }
  if (row_stride > kMaximumStride) {
    throw FormatError(source, "row_stride", row_stride,
                      "must be at most " + std::to_string(kMaximumStride));
  }
  layout.row_stride = row_stride;
  return layout;
}

}  // namespace molkv
