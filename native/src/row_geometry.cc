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

namespace {

// What the values' type decides.
struct ValueType {
  uint32_t key_dtype;  // where there are keys
  uint32_t scale_dtype;
  uint32_t group_size;
};

ValueType ValueTypeOf(const molkv_geometry& geometry, const std::string& source) {
  switch (geometry.value_dtype) {
    case MOLKV_FLOAT16:
      return {MOLKV_FLOAT16, MOLKV_NONE, 0};
    case MOLKV_INT8:
      return {MOLKV_INT8, MOLKV_FLOAT32, geometry.value_size};
    case MOLKV_INT4:
      return {MOLKV_INT8, MOLKV_FLOAT16, MOLKV_INT4_GROUP};
    default:
      throw FormatError(source, "value_dtype", geometry.value_dtype,
                        "must be 2 (float16), 3 (int8) or 4 (int4)");
  }
}

}  // namespace

void ValidateGeometry(const molkv_geometry& geometry, const std::string& source) {
  // One by one and before anything is multiplied, so that nothing can overflow below.
  RequireRange(source, "layers", geometry.layers, 1, 1024);
  RequireRange(source, "experts", geometry.experts, 1, 4096);
  RequireRange(source, "key_heads", geometry.key_heads, 0, 1024);
  RequireRange(source, "key_size", geometry.key_size, 0, 4096);
  RequireRange(source, "value_size", geometry.value_size, 1, 131072);
  const bool has_keys = geometry.key_heads != 0;
  if (has_keys != (geometry.key_size != 0)) {
    throw FormatError(source, "key_size", geometry.key_size,
                      "key_heads is " + std::to_string(geometry.key_heads) + ": both or none");
  }
  const ValueType type = ValueTypeOf(geometry, source);
  const uint64_t multiple = uint64_t{MOLKV_INT4_GROUP} * (has_keys ? geometry.key_heads : 1);
  if (geometry.value_dtype == MOLKV_INT4 && geometry.value_size % multiple != 0) {
    throw FormatError(source, "value_size", geometry.value_size,
                      "int4 values must be a multiple of " + std::to_string(multiple) + " (" +
                          std::to_string(MOLKV_INT4_GROUP) + " for each key head)",
                      "export with int8 or f16 experts");
  }
  struct Field {
    const char* name;
    uint64_t value;
    uint64_t expected;
  };
  const uint64_t key_group = type.key_dtype == MOLKV_INT8 ? KeyWidth(geometry) : 0;
  const std::array<Field, 4> implied = {{
      {"key_dtype", geometry.key_dtype, has_keys ? type.key_dtype : 0},
      {"scale_dtype", geometry.scale_dtype, type.scale_dtype},
      {"key_group_size", geometry.key_group_size, key_group},
      {"value_group_size", geometry.value_group_size, type.group_size},
  }};
  for (const Field& field : implied) {
    if (field.value != field.expected) {
      throw FormatError(
          source, field.name, field.value,
          "must be " + std::to_string(field.expected) + " for the other fields' values");
    }
  }
}

uint64_t DataBytes(uint32_t dtype, uint64_t elements) {
  switch (dtype) {
    case MOLKV_FLOAT32:
      return elements * 4;
    case MOLKV_FLOAT16:
      return elements * 2;
    case MOLKV_INT8:
      return elements;
    case MOLKV_INT4:
      return elements / 2;
    default:
      return 0;
  }
}

}  // namespace molkv
