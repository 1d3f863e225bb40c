// The check that every function of the C ABI begins with.

#ifndef MOLKV_SRC_REQUIRE_POINTER_H_
#define MOLKV_SRC_REQUIRE_POINTER_H_

#include <string>

#include "error.h"

namespace molkv {

// Refuses a null pointer by the name of its parameter.
inline void RequirePointer(const void* pointer, const char* name) {
  if (pointer == nullptr) {
    throw Error(MOLKV_INVALID_ARGUMENT,
                std::string(name) + " is NULL (pass the address of what it names)");
  }
}

}  // namespace molkv

#endif  // MOLKV_SRC_REQUIRE_POINTER_H_
