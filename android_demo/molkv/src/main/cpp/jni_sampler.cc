// The sampler, on logits that lie in a direct buffer.

#include "jni_support.h"

namespace molkv::jni {
namespace {

jlong Create(JNIEnv* env, jclass, jdouble temperature, jint top_k, jdouble top_p, jdouble min_p,
             jlong seed) {
  return Guard(env, [&] {
    molkv_sampling sampling = {};
    sampling.struct_size = sizeof(sampling);
    sampling.temperature = temperature;
    sampling.top_k = static_cast<uint32_t>(top_k);
    sampling.top_p = top_p;
    sampling.min_p = min_p;
    sampling.seed = static_cast<uint64_t>(seed);
    molkv_sampler* sampler = nullptr;
    Call(env, molkv_sampler_create, &sampling, &sampler);
    return ToHandle(sampler);
  });
}

void Free(JNIEnv*, jclass, jlong sampler) {
  molkv_sampler_free(FromHandle<molkv_sampler>(sampler));
}

jlong Sample(JNIEnv* env, jclass, jlong sampler, jobject logits, jint vocabulary_size) {
  return Guard(env, [&] {
    const auto size = static_cast<size_t>(vocabulary_size);
    const auto* const numbers =
        static_cast<const float*>(BufferMemory(env, logits, size * sizeof(float)));
    int64_t token_id = 0;
    Call(env, molkv_sampler_sample, FromHandle<molkv_sampler>(sampler), numbers, size, &token_id);
    return static_cast<jlong>(token_id);
  });
}

}  // namespace

void AddSamplerMethods(Methods* methods) {
  methods->push_back(Method("samplerCreate", "(DIDDJ)J", Create));
  methods->push_back(Method("samplerFree", "(J)V", Free));
  methods->push_back(Method("samplerSample", "(JLjava/nio/ByteBuffer;I)J", Sample));
}

}  // namespace molkv::jni
