#include "jni_support.h"

#include <climits>
#include <cstring>
#include <stdexcept>

namespace molkv::jni {
namespace {

jclass exception_class = nullptr;
jmethodID exception_constructor = nullptr;

jsize ArraySize(size_t size) {
  if (size > INT_MAX) throw std::bad_alloc();
  return static_cast<jsize>(size);
}

}  // namespace

bool PrepareExceptions(JNIEnv* env) {
  const jclass found = env->FindClass("ai/molkv/internal/NativeException");
  if (found == nullptr) return false;
  exception_class = static_cast<jclass>(env->NewGlobalRef(found));
  exception_constructor = env->GetMethodID(found, "<init>", "(I[B)V");
  env->DeleteLocalRef(found);
  return exception_class != nullptr && exception_constructor != nullptr;
}

void ThrowNative(JNIEnv* env, molkv_status status, const char* message) {
  if (env->ExceptionCheck()) return;
  const auto size = static_cast<jsize>(std::strlen(message));
  const jbyteArray bytes = env->NewByteArray(size);
  if (bytes == nullptr) return;  // an OutOfMemoryError is pending
  env->SetByteArrayRegion(bytes, 0, size, reinterpret_cast<const jbyte*>(message));
  const jobject exception =
      env->NewObject(exception_class, exception_constructor, static_cast<jint>(status), bytes);
  if (exception != nullptr) env->Throw(static_cast<jthrowable>(exception));
}

void CheckPending(JNIEnv* env) {
  if (env->ExceptionCheck()) throw JavaExceptionPending();
}

std::vector<char> Bytes(JNIEnv* env, jbyteArray array) {
  std::vector<char> bytes(static_cast<size_t>(env->GetArrayLength(array)));
  env->GetByteArrayRegion(array, 0, static_cast<jsize>(bytes.size()),
                          reinterpret_cast<jbyte*>(bytes.data()));
  CheckPending(env);
  return bytes;
}

jbyteArray ToByteArray(JNIEnv* env, const void* data, size_t size) {
  const jbyteArray array = env->NewByteArray(ArraySize(size));
  CheckPending(env);
  env->SetByteArrayRegion(array, 0, static_cast<jsize>(size), static_cast<const jbyte*>(data));
  return array;
}

jlongArray ToLongArray(JNIEnv* env, const std::vector<int64_t>& numbers) {
  static_assert(sizeof(jlong) == sizeof(int64_t));
  const jlongArray array = env->NewLongArray(ArraySize(numbers.size()));
  CheckPending(env);
  env->SetLongArrayRegion(array, 0, static_cast<jsize>(numbers.size()),
                          reinterpret_cast<const jlong*>(numbers.data()));
  return array;
}

void* BufferMemory(JNIEnv* env, jobject buffer, uint64_t bytes) {
  void* const memory = env->GetDirectBufferAddress(buffer);
  if (memory == nullptr) throw std::invalid_argument("the buffer is not direct");
  if (static_cast<uint64_t>(env->GetDirectBufferCapacity(buffer)) < bytes) {
    throw std::invalid_argument("the buffer is too small");
  }
  return memory;
}

}  // namespace molkv::jni
