// What Java loads first: registers the functions of ai.molkv.internal.Native.

#include <cstdlib>
#include <string_view>

#include "jni_support.h"

namespace molkv::jni {
namespace {

jint AbiVersion(JNIEnv*, jclass) { return static_cast<jint>(molkv_abi_version()); }

jbyteArray KernelName(JNIEnv* env, jclass) {
  return Guard(env, [&] {
    const std::string_view name = molkv_kernel_name(MOLKV_KERNEL_BEST);
    return ToByteArray(env, name.data(), name.size());
  });
}

// Zeroed memory whose pages cost nothing before they are written.
jobject Allocate(JNIEnv* env, jclass, jlong bytes) {
  return Guard(env, [&]() -> jobject {
    void* const memory = std::calloc(static_cast<size_t>(bytes), 1);
    if (memory == nullptr) throw std::bad_alloc();
    const jobject buffer = env->NewDirectByteBuffer(memory, bytes);
    if (buffer == nullptr) std::free(memory);
    CheckPending(env);
    return buffer;
  });
}

void Free(JNIEnv* env, jclass, jobject buffer) { std::free(env->GetDirectBufferAddress(buffer)); }

}  // namespace
}  // namespace molkv::jni

extern "C" JNIEXPORT jint JNICALL JNI_OnLoad(JavaVM* machine, void*) {
  using namespace molkv::jni;
  JNIEnv* env = nullptr;
  if (machine->GetEnv(reinterpret_cast<void**>(&env), JNI_VERSION_1_6) != JNI_OK) return JNI_ERR;
  if (!PrepareExceptions(env)) return JNI_ERR;
  const jclass native = env->FindClass("ai/molkv/internal/Native");
  if (native == nullptr) return JNI_ERR;
  Methods methods = {
      Method("abiVersion", "()I", AbiVersion),
      Method("kernelName", "()[B", KernelName),
      Method("allocate", "(J)Ljava/nio/ByteBuffer;", Allocate),
      Method("free", "(Ljava/nio/ByteBuffer;)V", Free),
  };
  AddBlobMethods(&methods);
  AddWindowMethods(&methods);
  AddSamplerMethods(&methods);
  AddTokenizerMethods(&methods);
  // A function that Kotlin does not declare so fails here, once, not at its first call.
  if (env->RegisterNatives(native, methods.data(), static_cast<jint>(methods.size())) != JNI_OK) {
    return JNI_ERR;
  }
  return JNI_VERSION_1_6;
}
