#include "window.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <new>
#include <string>

#include "error.h"
#include "row_geometry.h"

namespace molkv {
namespace {

RowLayout LayoutOf(const molkv_geometry& geometry) {
  try {
    return RowLayout::Of(geometry, "window geometry");
  } catch (const Error& error) {
    // The rules are a file's, but here the caller broke them.
    throw Error(MOLKV_INVALID_ARGUMENT, error.what());
  }
}

// Throws for a window or a chunk of zero.
uint64_t CapacityOf(uint64_t window, uint64_t chunk) {
  if (window == 0 || chunk == 0) {
    throw Error(MOLKV_INVALID_ARGUMENT,
                std::string("window: ") + (window == 0 ? "window" : "chunk") +
                    " is 0, but must be at least 1 (pass the model's window, and the most tokens "
                    "of one step)");
  }
  return window - 1 + std::max(chunk, window);
}

uint64_t BytesOf(const RowLayout& layout, uint32_t layers, uint64_t capacity) {
  uint64_t row = 0;
  for (const Section& section : layout.sections) {
    row += section.size;
  }
  uint64_t bytes = 0;
  if (__builtin_mul_overflow(row * layers, capacity, &bytes) || bytes > SIZE_MAX / 2) {
    throw Error(MOLKV_OUT_OF_MEMORY, "window: " + std::to_string(capacity) + " rows of " +
                                         std::to_string(row * layers) +
                                         " bytes do not fit in memory (use a smaller window or "
                                         "chunk)");
  }
  return bytes;
}

}  // namespace

ExpertWindow::ExpertWindow(const molkv_geometry& geometry, uint32_t window, uint32_t chunk)
    : layers_(geometry.layers),
      window_(window),
      chunk_(chunk),
      layout_(LayoutOf(geometry)),
      capacity_(CapacityOf(window, chunk)),
      bytes_(BytesOf(layout_, layers_, capacity_)) {
  Allocate();
}

ExpertWindow::ExpertWindow(const ExpertWindow& other)
    : layers_(other.layers_),
      window_(other.window_),
      chunk_(other.chunk_),
      layout_(other.layout_),
      capacity_(other.capacity_),
      bytes_(other.bytes_),
      first_(other.first_),
      last_(other.last_),
      dropped_(other.dropped_) {
  Allocate();
  const size_t sections = layout_.sections.size();
  for (size_t i = 0; i < planes_.size(); ++i) {
    std::memcpy(planes_[i].get(), other.planes_[i].get(),
                last_ * layout_.sections[i % sections].size);
  }
}

void ExpertWindow::Allocate() {
  for (uint32_t layer = 0; layer < layers_; ++layer) {
    for (const Section& section : layout_.sections) {
      planes_.emplace_back(static_cast<uint8_t*>(std::calloc(capacity_, section.size)));
      if (planes_.back() == nullptr) {
        throw std::bad_alloc();
      }
    }
  }
}

void ExpertWindow::Append(const uint8_t* rows, uint64_t row_stride, const uint32_t* index,
                          size_t count) {
  if (row_stride < layout_.row_size) {
    throw Error(MOLKV_INVALID_ARGUMENT, "window: row_stride is " + std::to_string(row_stride) +
                                            ", but a row has " + std::to_string(layout_.row_size) +
                                            " bytes (pass the blob's row_stride)");
  }
  if (count > chunk_) {
    throw Error(MOLKV_OUT_OF_RANGE, "window: " + std::to_string(count) +
                                        " tokens to append, but chunk is " +
                                        std::to_string(chunk_) + " (append them in parts)");
  }
  const uint64_t kept = std::min(last_ - first_, window_ - 1);
  const uint64_t oldest = last_ - kept;
  if (last_ + count > capacity_) {
    MoveToFront(oldest, kept);
  } else {
    first_ = oldest;
  }
  const size_t sections = layout_.sections.size();
  for (size_t token = 0; token < count; ++token) {
    const uint8_t* part = rows + index[token] * row_stride;
    for (size_t plane = 0; plane < planes_.size(); plane += sections, part += layout_.layer_size) {
      for (size_t i = 0; i < sections; ++i) {
        const Section& section = layout_.sections[i];
        std::memcpy(planes_[plane + i].get() + (last_ + token) * section.size,
                    part + section.offset, section.size);
      }
    }
  }
  last_ += count;
}

void ExpertWindow::MoveToFront(uint64_t first, uint64_t rows) {
  const size_t sections = layout_.sections.size();
  for (size_t i = 0; i < planes_.size(); ++i) {
    const uint64_t size = layout_.sections[i % sections].size;
    uint8_t* plane = planes_[i].get();
    std::memmove(plane, plane + first * size, rows * size);
  }
  dropped_ += first;
  first_ = 0;
  last_ = rows;
}

molkv_plane ExpertWindow::PlaneOf(uint32_t layer, molkv_plane_kind kind) const {
  if (layer >= layers_) {
    throw Error(MOLKV_INVALID_ARGUMENT, "window: layer is " + std::to_string(layer) +
                                            ", but there are " + std::to_string(layers_) +
                                            " (count from 0)");
  }
  const auto code = static_cast<uint32_t>(kind);
  if (code > MOLKV_VALUE_SCALES) {
    throw Error(MOLKV_INVALID_ARGUMENT,
                "window: kind is " + std::to_string(code) + ", but must be a molkv_plane_kind");
  }
  molkv_plane view{};
  view.rows = last_ - first_;
  const size_t sections = layout_.sections.size();
  for (size_t i = 0; i < sections; ++i) {
    const Section& section = layout_.sections[i];
    if (section.kind == kind) {
      view.data = planes_[layer * sections + i].get() + first_ * section.size;
      view.row_bytes = section.size;
      view.dtype = section.dtype;
    }
  }
  return view;
}

void ExpertWindow::Reset() {
  first_ = 0;
  last_ = 0;
  dropped_ = 0;
}

void ExpertWindow::Truncate(uint64_t count) {
  const uint64_t tokens = dropped_ + last_;
  if (count > tokens) {
    throw Error(MOLKV_OUT_OF_RANGE, "window: " + std::to_string(count) +
                                        " tokens to forget, but there are " +
                                        std::to_string(tokens) + " (forget at most these)");
  }
  const uint64_t left = tokens - count;
  // The next token attends to W - 1 rows, or to as many as there were.
  const uint64_t needed = std::min(left, window_ - 1);
  if (left - needed < dropped_) {
    throw Error(MOLKV_OUT_OF_RANGE, "window: " + std::to_string(count) +
                                        " tokens to forget, but the rows before them "
                                        "are dropped already (reset, then append the last " +
                                        std::to_string(needed) + " tokens' rows anew)");
  }
  last_ = left - dropped_;
  first_ = std::min(first_, last_ - needed);
}

}  // namespace molkv
