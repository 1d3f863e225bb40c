// The expert window, whose planes Java sees as buffers over the same memory.

#include "jni_support.h"

namespace molkv::jni {
namespace {

jlong Create(JNIEnv* env, jclass, jlong blob, jint size, jint chunk) {
  return Guard(env, [&] {
    molkv_blob_info info;
    molkv_blob_get_info(FromHandle<molkv_blob>(blob), &info);
    molkv_window* window = nullptr;
    Call(env, molkv_window_create, &info.geometry, static_cast<uint32_t>(size),
         static_cast<uint32_t>(chunk), &window);
    return ToHandle(window);
  });
}

void Free(JNIEnv*, jclass, jlong window) { molkv_window_free(FromHandle<molkv_window>(window)); }

void Reset(JNIEnv*, jclass, jlong window) { molkv_window_reset(FromHandle<molkv_window>(window)); }

jlong MemoryBytes(JNIEnv*, jclass, jlong window) {
  return static_cast<jlong>(molkv_window_bytes(FromHandle<molkv_window>(window)));
}

// The place of the current view: first row in the upper half, last-plus-one in the lower.
jlong Place(JNIEnv*, jclass, jlong window) {
  uint64_t first = 0, last = 0;
  molkv_window_bounds(FromHandle<molkv_window>(window), &first, &last);
  return static_cast<jlong>(first << 32 | last);
}

// A view of a plane without a copy; valid until the window is changed or freed.
jobject Plane(JNIEnv* env, jclass, jlong window, jint layer, jint kind) {
  return Guard(env, [&]() -> jobject {
    molkv_plane plane;
    Call(env, molkv_window_plane, FromHandle<molkv_window>(window), static_cast<uint32_t>(layer),
         static_cast<molkv_plane_kind>(kind), &plane);
    if (plane.data == nullptr) return nullptr;
    const jobject buffer =
        env->NewDirectByteBuffer(plane.data, static_cast<jlong>(plane.rows * plane.row_bytes));
    CheckPending(env);
    return buffer;
  });
}

// Fills a direct buffer with the input embeddings of new tokens; null where their rows carry none.
void FillEmbeddings(JNIEnv* env, const molkv_blob* blob, const molkv_blob_info& info,
                    const uint8_t* rows, const uint32_t* index, size_t count, jobject buffer) {
  if (buffer == nullptr) return;
  const uint64_t bytes = uint64_t{count} * info.geometry.value_size * sizeof(float);
  auto* const embeddings = static_cast<float*>(BufferMemory(env, buffer, bytes));
  Call(env, molkv_blob_embeddings, blob, rows, index, count, embeddings);
}

// Reads one token's row, into memory of row_stride bytes, and appends it.
void AppendToken(JNIEnv* env, jclass, jlong window, jlong blob, jlong token_id, jobject row,
                 jobject embeddings) {
  Guard(env, [&] {
    molkv_blob_info info;
    molkv_blob_get_info(FromHandle<molkv_blob>(blob), &info);
    auto* const memory = static_cast<uint8_t*>(BufferMemory(env, row, info.row_stride));
    const int64_t id = token_id;
    uint32_t index = 0;
    size_t distinct = 0;
    Call(env, molkv_blob_read, FromHandle<molkv_blob>(blob), &id, size_t{1}, memory, &index,
         &distinct);
    Call(env, molkv_window_append, FromHandle<molkv_window>(window), memory, info.row_stride,
         &index, size_t{1});
    FillEmbeddings(env, FromHandle<molkv_blob>(blob), info, memory, &index, 1, embeddings);
  });
}

// Waits for rows that are read ahead and appends them.
void AppendPrefetch(JNIEnv* env, jclass, jlong window, jlong blob, jlong prefetch, jint count,
                    jobject embeddings) {
  Guard(env, [&] {
    molkv_blob_info info;
    molkv_blob_get_info(FromHandle<molkv_blob>(blob), &info);
    const uint8_t* rows = nullptr;
    const uint32_t* index = nullptr;
    size_t distinct = 0;
    Call(env, molkv_prefetch_wait, FromHandle<molkv_prefetch>(prefetch), &rows, &index, &distinct);
    Call(env, molkv_window_append, FromHandle<molkv_window>(window), rows, info.row_stride, index,
         static_cast<size_t>(count));
    FillEmbeddings(env, FromHandle<molkv_blob>(blob), info, rows, index, static_cast<size_t>(count),
                   embeddings);
  });
}

}  // namespace

void AddWindowMethods(Methods* methods) {
  methods->push_back(Method("windowCreate", "(JII)J", Create));
  methods->push_back(Method("windowFree", "(J)V", Free));
  methods->push_back(Method("windowReset", "(J)V", Reset));
  methods->push_back(Method("windowBytes", "(J)J", MemoryBytes));
  methods->push_back(Method("windowPlace", "(J)J", Place));
  methods->push_back(Method("windowPlane", "(JII)Ljava/nio/ByteBuffer;", Plane));
  methods->push_back(
      Method("windowAppendToken", "(JJJLjava/nio/ByteBuffer;Ljava/nio/ByteBuffer;)V", AppendToken));
  methods->push_back(
      Method("windowAppendPrefetch", "(JJJILjava/nio/ByteBuffer;)V", AppendPrefetch));
}

}  // namespace molkv::jni
