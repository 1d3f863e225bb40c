#include "row_geometry.h"

#include <array>

namespace molkv {

Error FormatError(const std::string& source, const std::string& field, const std::string& value,
                  const std::string& rule, const std::string& fix) {
  return Error(MOLKV_FORMAT,
               source + ": " + field + " is " + value + ", but " + rule + " (" + fix + ")");
}

Error FormatError(const std::string& source, const std::string& field, uint64_t value,
                  const std::string& rule, const std::string& fix) {
  return FormatError(source, field, std::to_string(value), rule, fix);
}

void RequireRange(const std::string& source, const std::string& field, uint64_t value,
                  uint64_t least, uint64_t most) {
  if (value < least || value > most) {
    throw FormatError(source, field, value,
                      "must be " + std::to_string(least) + " to " + std::to_string(most));
  }
}

void ValidateGeometry(const molkv_geometry& geometry, const std::string& source) {
  // One by one and before anything is multiplied, so that nothing can overflow below.
  RequireRange(source, "layers", geometry.layers, 1, 1024);
  RequireRange(source, "experts", geometry.experts, 1, 4096);
  RequireRange(source, "key_heads", geometry.key_heads, 0, 1024);
  RequireRange(source, "key_size", geometry.key_size, 0, 4096);
  RequireRange(source, "value_size", geometry.value_size, 1, 131072);
  if ((geometry.key_heads == 0) != (geometry.key_size == 0)) {
    throw FormatError(source, "key_size", geometry.key_size,
                      "key_heads is " + std::to_string(geometry.key_heads) + ": both or none");
  }
  struct Field {
    const char* name;
    uint64_t value;
    uint64_t expected;
  };
  const std::array<Field, 2> types = {{{"key_dtype", geometry.key_dtype, 0},  //
                                       {"value_dtype", geometry.value_dtype, 0}}};
  for (const Field& field : types) {
    if (field.value == MOLKV_INT4) {
      throw FormatError(source, field.name, "4 (int4)", "this reader does not support it yet",
                        "update molkv, or export with int8 or float16");
    }
  }
  if (geometry.value_dtype != MOLKV_FLOAT16 && geometry.value_dtype != MOLKV_INT8) {
    throw FormatError(source, "value_dtype", geometry.value_dtype,
                      "must be 2 (float16) or 3 (int8)");
  }
  const bool quantized = geometry.value_dtype == MOLKV_INT8;
  const std::array<Field, 4> implied = {{
      {"key_dtype", geometry.key_dtype, geometry.key_heads != 0 ? geometry.value_dtype : 0},
      {"scale_dtype", geometry.scale_dtype, quantized ? uint64_t{MOLKV_FLOAT32} : 0},
      {"key_group_size", geometry.key_group_size, quantized ? KeyWidth(geometry) : 0},
      {"value_group_size", geometry.value_group_size, quantized ? geometry.value_size : 0},
  }};
  for (const Field& field : implied) {
    if (field.value != field.expected) {
      throw FormatError(
          source, field.name, field.value,
          "must be " + std::to_string(field.expected) + " for the other fields' values");
    }
  }
}

uint64_t DataTypeSize(uint32_t dtype) {
  switch (dtype) {
    case MOLKV_FLOAT32:
      return 4;
    case MOLKV_FLOAT16:
      return 2;
    case MOLKV_INT8:
      return 1;
    default:
      return 0;
  }
}

}  // namespace molkv
