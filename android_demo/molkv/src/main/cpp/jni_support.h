// What all JNI functions share: errors become exceptions, handles are numbers, text is bytes.

#ifndef MOLKV_JNI_SUPPORT_H_
#define MOLKV_JNI_SUPPORT_H_

#include <jni.h>

#include <cstddef>
#include <cstdint>
#include <exception>
#include <new>
#include <type_traits>
#include <vector>

#include "molkv/molkv.h"

namespace molkv::jni {

// Thrown inside this library where a Java exception is pending already.
struct JavaExceptionPending {};

// Functions for RegisterNatives.
using Methods = std::vector<JNINativeMethod>;

template <typename Function>
JNINativeMethod Method(const char* name, const char* signature, Function* function) {
  return {const_cast<char*>(name), const_cast<char*>(signature), reinterpret_cast<void*>(function)};
}

void AddBlobMethods(Methods* methods);
void AddWindowMethods(Methods* methods);
void AddSamplerMethods(Methods* methods);
void AddTokenizerMethods(Methods* methods);

// Looks up the exception's class; false with a Java exception pending if that fails.
bool PrepareExceptions(JNIEnv* env);

// Makes an ai.molkv.internal.NativeException pending.
void ThrowNative(JNIEnv* env, molkv_status status, const char* message);

// Runs the body of a JNI function. No C++ exception leaves it: each becomes a Java exception, and
// zero is returned, which Java never sees.
template <typename Body>
auto Guard(JNIEnv* env, const Body& body) -> std::invoke_result_t<Body> {
  using Result = std::invoke_result_t<Body>;
  try {
    return body();
  } catch (const JavaExceptionPending&) {
  } catch (const std::bad_alloc&) {
    ThrowNative(env, MOLKV_OUT_OF_MEMORY, "there is not enough memory");
  } catch (const std::exception& error) {
    ThrowNative(env, MOLKV_INVALID_ARGUMENT, error.what());
  }
  if constexpr (!std::is_void_v<Result>) return Result{};
}

// Calls a function of molkv.h that can fail.
template <typename Function, typename... Arguments>
void Call(JNIEnv* env, const Function& function, Arguments... arguments) {
  molkv_error error;
  const molkv_status status = function(arguments..., &error);
  if (status == MOLKV_OK) return;
  ThrowNative(env, status, error.message);
  throw JavaExceptionPending();
}

template <typename Object>
Object* FromHandle(jlong handle) {
  return reinterpret_cast<Object*>(static_cast<intptr_t>(handle));
}

template <typename Object>
jlong ToHandle(Object* object) {
  return static_cast<jlong>(reinterpret_cast<intptr_t>(object));
}

// Throws JavaExceptionPending if the last call of JNI failed.
void CheckPending(JNIEnv* env);

std::vector<char> Bytes(JNIEnv* env, jbyteArray array);
jbyteArray ToByteArray(JNIEnv* env, const void* data, size_t size);
jlongArray ToLongArray(JNIEnv* env, const std::vector<int64_t>& numbers);

// The memory of a direct buffer that has at least `bytes`.
void* BufferMemory(JNIEnv* env, jobject buffer, uint64_t bytes);

}  // namespace molkv::jni

#endif  // MOLKV_JNI_SUPPORT_H_
