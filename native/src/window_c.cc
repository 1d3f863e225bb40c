// The C functions of the expert window.

#include <memory>

#include "error.h"
#include "molkv/molkv.h"
#include "window.h"

struct molkv_window final : molkv::ExpertWindow {
  using ExpertWindow::ExpertWindow;
};

namespace {

void RequirePointers(bool all_there) {
  if (!all_there) {
    throw molkv::Error(MOLKV_INVALID_ARGUMENT, "window: a pointer is NULL (pass all of them)");
  }
}

}  // namespace

extern "C" {

molkv_status molkv_window_create(const molkv_geometry* geometry, uint32_t window, uint32_t chunk,
                                 molkv_window** result, molkv_error* error) {
  return molkv::Guard(error, [&] {
    RequirePointers(geometry != nullptr && result != nullptr);
    *result = std::make_unique<molkv_window>(*geometry, window, chunk).release();
  });
}

void molkv_window_free(molkv_window* window) { delete window; }

uint64_t molkv_window_bytes(const molkv_window* window) {
  return window != nullptr ? window->bytes() : 0;
}

molkv_status molkv_window_append(molkv_window* window, const uint8_t* rows, uint64_t row_stride,
                                 const uint32_t* index, size_t count, molkv_error* error) {
  return molkv::Guard(error, [&] {
    RequirePointers(window != nullptr && (count == 0 || (rows != nullptr && index != nullptr)));
    window->Append(rows, row_stride, index, count);
  });
}

void molkv_window_bounds(const molkv_window* window, uint64_t* first, uint64_t* last) {
  if (window != nullptr && first != nullptr && last != nullptr) {
    *first = window->first();
    *last = window->last();
  }
}

molkv_status molkv_window_plane(const molkv_window* window, uint32_t layer, molkv_plane_kind kind,
                                molkv_plane* plane, molkv_error* error) {
  return molkv::Guard(error, [&] {
    RequirePointers(window != nullptr && plane != nullptr);
    *plane = window->PlaneOf(layer, kind);
  });
}

void molkv_window_reset(molkv_window* window) {
  if (window != nullptr) {
    window->Reset();
  }
}

molkv_status molkv_window_truncate(molkv_window* window, uint64_t count, molkv_error* error) {
  return molkv::Guard(error, [&] {
    RequirePointers(window != nullptr);
    window->Truncate(count);
  });
}

molkv_status molkv_window_fork(const molkv_window* window, molkv_window** result,
                               molkv_error* error) {
  return molkv::Guard(error, [&] {
    RequirePointers(window != nullptr && result != nullptr);
    *result = std::make_unique<molkv_window>(*window).release();
  });
}

}  // extern "C"
