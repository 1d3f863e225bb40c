# Cross-compiles for 64-bit ARM Linux with Debian's g++-aarch64-linux-gnu:
#   cmake -S native -B build/arm64 --toolchain "$PWD"/native/cmake/aarch64-linux-gnu.cmake
set(CMAKE_SYSTEM_NAME Linux)
set(CMAKE_SYSTEM_PROCESSOR aarch64)
set(CMAKE_C_COMPILER aarch64-linux-gnu-gcc)
set(CMAKE_CXX_COMPILER aarch64-linux-gnu-g++)
set(CMAKE_FIND_ROOT_PATH /usr/aarch64-linux-gnu)
set(CMAKE_FIND_ROOT_PATH_MODE_PROGRAM NEVER)
set(CMAKE_FIND_ROOT_PATH_MODE_LIBRARY ONLY)
set(CMAKE_FIND_ROOT_PATH_MODE_INCLUDE ONLY)
set(CMAKE_FIND_ROOT_PATH_MODE_PACKAGE BOTH)  # libraries of headers only serve any processor

# An emulator, where there is one, makes `ctest` run what was built.
find_program(MOLKV_QEMU NAMES qemu-aarch64-static qemu-aarch64)
if(MOLKV_QEMU)
  set(CMAKE_CROSSCOMPILING_EMULATOR ${MOLKV_QEMU} -cpu max -L /usr/aarch64-linux-gnu)
endif()
