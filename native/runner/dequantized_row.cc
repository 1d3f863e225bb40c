#include "dequantized_row.h"

#include <cmath>

#include "molkv_handles.h"
#include "sha256.h"

namespace molkv::runner {
namespace {

// IEEE 754 binary16 to binary32, which is exact.
float FromHalf(uint16_t half) {
  const int exponent = (half >> 10) & 31;
  const int fraction = half & 1023;
  float magnitude;
  if (exponent == 31) {
    magnitude = fraction == 0 ? INFINITY : NAN;
  } else if (exponent == 0) {
    magnitude = std::ldexp(static_cast<float>(fraction), -24);
  } else {
    magnitude = std::ldexp(static_cast<float>(1024 + fraction), exponent - 25);
  }
  return (half & 0x8000) != 0 ? -magnitude : magnitude;
}

float Element(const molkv_plane& plane, size_t place) {
  switch (plane.dtype) {
    case MOLKV_FLOAT32:
      return static_cast<const float*>(plane.data)[place];
    case MOLKV_INT8:
      return static_cast<const int8_t*>(plane.data)[place];
    case MOLKV_INT4: {
      const int bits = static_cast<const uint8_t*>(plane.data)[place / 2] >> (place % 2 * 4) & 15;
      return static_cast<float>(bits < 8 ? bits : bits - 16);
    }
    default:
      return FromHalf(static_cast<const uint16_t*>(plane.data)[place]);
  }
}

// Dequantizes a plane with one row of `experts` vectors into the digest.
void Update(const molkv_plane& vectors, const molkv_plane& scales, size_t experts, size_t size,
            size_t group_size, Sha256* digest) {
  if (vectors.data == nullptr) return;
  std::vector<float> exact(experts * size);
  for (size_t place = 0; place < exact.size(); ++place) {
    exact[place] = Element(vectors, place);
    if (scales.data != nullptr) {
      exact[place] *= Element(scales, place / group_size);
    }
  }
  digest->Update(exact.data(), exact.size() * sizeof(float));
}

}  // namespace

std::string DequantizedSha256(const molkv_blob& blob, const std::vector<uint8_t>& row) {
  molkv_blob_info info;
  molkv_blob_get_info(&blob, &info);
  // A window of one token: its planes are the row's sections.
  const molkv_geometry& geometry = info.geometry;
  const auto window =
      MakeMolkv<molkv_window>(molkv_window_create, &geometry, uint32_t{1}, uint32_t{1});
  const uint32_t index = 0;
  CallMolkv(molkv_window_append, window.get(), row.data(), info.row_stride, &index, size_t{1});
  Sha256 digest;
  for (uint32_t layer = 0; layer < geometry.layers; ++layer) {
    const auto plane = [&](molkv_plane_kind kind) {
      molkv_plane view;
      CallMolkv(molkv_window_plane, window.get(), layer, kind, &view);
      return view;
    };
    const size_t key_width = size_t{geometry.key_heads} * geometry.key_size;
    Update(plane(MOLKV_KEYS), plane(MOLKV_KEY_SCALES), geometry.experts, key_width,
           geometry.key_group_size, &digest);
    Update(plane(MOLKV_VALUES), plane(MOLKV_VALUE_SCALES), geometry.experts, geometry.value_size,
           geometry.value_group_size, &digest);
  }
  if (molkv_blob_embedding_dtype(&blob) != MOLKV_NONE) {
    std::vector<float> embedding(geometry.value_size);
    CallMolkv(molkv_blob_embeddings, &blob, row.data(), &index, size_t{1}, embedding.data());
    digest.Update(embedding.data(), embedding.size() * sizeof(float));
  }
  return digest.Finish();
}

}  // namespace molkv::runner
