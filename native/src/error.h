// Errors inside the library are exceptions; none crosses the C ABI.

#ifndef MOLKV_SRC_ERROR_H_
#define MOLKV_SRC_ERROR_H_

#include <new>
#include <stdexcept>
#include <string>
#include <utility>

#include "molkv/molkv.h"

namespace molkv {

// What the C ABI reports: a status and a message that names the place, the value and the fix.
class Error : public std::runtime_error {
 public:
  Error(molkv_status status, const std::string& message)
      : std::runtime_error(message), status_(status) {}

  molkv_status status() const { return status_; }

 private:
  molkv_status status_;
};

// Fills `error`, if there is one, and returns `status`.
molkv_status Report(molkv_error* error, molkv_status status, const char* message) noexcept;

// Runs the body of a C function and turns what it throws into a status and a message.
template <typename Body>
molkv_status Guard(molkv_error* error, Body&& body) noexcept {
  try {
    std::forward<Body>(body)();
    return MOLKV_OK;
  } catch (const Error& failure) {
    return Report(error, failure.status(), failure.what());
  } catch (const std::bad_alloc&) {
    return Report(error, MOLKV_OUT_OF_MEMORY, "not enough memory (close other programs)");
  } catch (const std::exception& failure) {
    return Report(error, MOLKV_INVALID_ARGUMENT, failure.what());
  }
}

}  // namespace molkv

#endif  // MOLKV_SRC_ERROR_H_
