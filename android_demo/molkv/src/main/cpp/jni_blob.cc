// Expert blobs, and rows that are read ahead.

#include <string>

#include "jni_support.h"

namespace molkv::jni {
namespace {

molkv_blob_options Options(jint readers, jboolean resident) {
  molkv_blob_options options = {};
  options.struct_size = sizeof(options);
  options.readers = static_cast<uint32_t>(readers);
  options.mode = resident ? MOLKV_RESIDENT : MOLKV_STORAGE;
  return options;
}

jlong Open(JNIEnv* env, jclass, jobjectArray paths, jint readers, jboolean resident) {
  return Guard(env, [&] {
    std::vector<std::string> files;
    for (jsize i = 0; i < env->GetArrayLength(paths); ++i) {
      const auto path = static_cast<jbyteArray>(env->GetObjectArrayElement(paths, i));
      const std::vector<char> bytes = Bytes(env, path);
      files.emplace_back(bytes.begin(), bytes.end());
      env->DeleteLocalRef(path);
    }
    std::vector<const char*> names;
    for (const std::string& file : files) names.push_back(file.c_str());
    const molkv_blob_options options = Options(readers, resident);
    molkv_blob* blob = nullptr;
    Call(env, molkv_blob_open, names.data(), names.size(), &options, &blob);
    return ToHandle(blob);
  });
}

jlong OpenDescriptor(JNIEnv* env, jclass, jint descriptor, jlong offset, jlong length, jint readers,
                     jboolean resident) {
  return Guard(env, [&] {
    const molkv_blob_options options = Options(readers, resident);
    molkv_blob* blob = nullptr;
    Call(env, molkv_blob_open_descriptor, descriptor, static_cast<uint64_t>(offset),
         static_cast<uint64_t>(length), &options, &blob);
    return ToHandle(blob);
  });
}

void Close(JNIEnv*, jclass, jlong blob) { molkv_blob_close(FromHandle<molkv_blob>(blob)); }

// In the order of the properties of ai.molkv.internal.BlobInfo.
jlongArray Info(JNIEnv* env, jclass, jlong blob) {
  return Guard(env, [&] {
    molkv_blob_info info;
    molkv_blob_get_info(FromHandle<molkv_blob>(blob), &info);
    const molkv_geometry& rows = info.geometry;
    return ToLongArray(
        env, {rows.layers, rows.experts, rows.key_heads, rows.key_size, rows.value_size,
              rows.key_dtype, rows.value_dtype, static_cast<int64_t>(info.vocabulary_size),
              static_cast<int64_t>(info.row_size), static_cast<int64_t>(info.row_stride),
              molkv_blob_embedding_dtype(FromHandle<molkv_blob>(blob))});
  });
}

jbyteArray Identity(JNIEnv* env, jclass, jlong blob) {
  return Guard(env, [&] {
    molkv_blob_info info;
    molkv_blob_get_info(FromHandle<molkv_blob>(blob), &info);
    return ToByteArray(env, info.identity, sizeof(info.identity));
  });
}

// Rows and bytes read so far.
jlongArray Statistics(JNIEnv* env, jclass, jlong blob) {
  return Guard(env, [&] {
    molkv_blob_stats statistics;
    molkv_blob_get_stats(FromHandle<molkv_blob>(blob), &statistics);
    return ToLongArray(
        env, {static_cast<int64_t>(statistics.rows), static_cast<int64_t>(statistics.bytes)});
  });
}

// The bytes of a row that carry data.
jbyteArray ReadRow(JNIEnv* env, jclass, jlong blob, jlong token_id) {
  return Guard(env, [&] {
    molkv_blob_info info;
    molkv_blob_get_info(FromHandle<molkv_blob>(blob), &info);
    std::vector<uint8_t> row(info.row_stride);
    const int64_t id = token_id;
    uint32_t index = 0;
    size_t distinct = 0;
    Call(env, molkv_blob_read, FromHandle<molkv_blob>(blob), &id, size_t{1}, row.data(), &index,
         &distinct);
    return ToByteArray(env, row.data(), info.row_size);
  });
}

jlong StartPrefetch(JNIEnv* env, jclass, jlong blob, jlongArray token_ids, jint first, jint count) {
  return Guard(env, [&] {
    std::vector<int64_t> ids(static_cast<size_t>(count));
    env->GetLongArrayRegion(token_ids, first, count, reinterpret_cast<jlong*>(ids.data()));
    CheckPending(env);
    molkv_prefetch* prefetch = nullptr;
    Call(env, molkv_prefetch_start, FromHandle<molkv_blob>(blob), ids.data(), ids.size(),
         &prefetch);
    return ToHandle(prefetch);
  });
}

void FreePrefetch(JNIEnv*, jclass, jlong prefetch) {
  molkv_prefetch_free(FromHandle<molkv_prefetch>(prefetch));
}

}  // namespace

void AddBlobMethods(Methods* methods) {
  methods->push_back(Method("blobOpen", "([[BIZ)J", Open));
  methods->push_back(Method("blobOpenDescriptor", "(IJJIZ)J", OpenDescriptor));
  methods->push_back(Method("blobClose", "(J)V", Close));
  methods->push_back(Method("blobInfo", "(J)[J", Info));
  methods->push_back(Method("blobIdentity", "(J)[B", Identity));
  methods->push_back(Method("blobStatistics", "(J)[J", Statistics));
  methods->push_back(Method("blobReadRow", "(JJ)[B", ReadRow));
  methods->push_back(Method("prefetchStart", "(J[JII)J", StartPrefetch));
  methods->push_back(Method("prefetchFree", "(J)V", FreePrefetch));
}

}  // namespace molkv::jni
