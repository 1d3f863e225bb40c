// The expert window: the last rows' keys and values, in planes that the dense graph reads
// (docs/graph.md, "The window").

#ifndef MOLKV_SRC_WINDOW_H_
#define MOLKV_SRC_WINDOW_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "aligned_buffer.h"
#include "molkv/molkv.h"
#include "row_layout.h"

namespace molkv {

// Rows are appended where the graph will read them. When the planes are full, the W - 1 rows that
// can still be attended move to the front: with room for two windows that is one copy every W
// tokens.
class ExpertWindow {
 public:
  ExpertWindow(const molkv_geometry& geometry, uint32_t window, uint32_t chunk);

  // Copies the rows that are there, and nothing else.
  ExpertWindow(const ExpertWindow& other);
  ExpertWindow& operator=(const ExpertWindow&) = delete;

  uint64_t bytes() const { return bytes_; }
  uint64_t first() const { return first_; }
  uint64_t last() const { return last_; }

  void Append(const uint8_t* rows, uint64_t row_stride, const uint32_t* index, size_t count);
  molkv_plane PlaneOf(uint32_t layer, molkv_plane_kind kind) const;
  void Reset();
  void Truncate(uint64_t count);

 private:
  // Zeros that take no memory until they are written. Each plane has an allocation of its own, so
  // that tools which find overruns see one plane's end from the next one's begin.
  using Plane = std::unique_ptr<uint8_t, FreeMemory>;

  void Allocate();
  void MoveToFront(uint64_t first, uint64_t rows);

  uint32_t layers_;
  uint64_t window_;
  uint64_t chunk_;
  RowLayout layout_;
  uint64_t capacity_;
  uint64_t bytes_;
  std::vector<Plane> planes_;  // of layer 0 in the order of layout_.sections, of layer 1, ...
  uint64_t first_ = 0;
  uint64_t last_ = 0;
  // Tokens whose rows were given up when others moved to the front; rows [0, last_) are all there.
  uint64_t dropped_ = 0;
};

}  // namespace molkv

#endif  // MOLKV_SRC_WINDOW_H_
