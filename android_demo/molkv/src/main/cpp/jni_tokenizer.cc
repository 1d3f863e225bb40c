// Tokenizers and text streams. Text is UTF-8 in byte arrays: JNI's own strings are another
// encoding.

#include "jni_support.h"

namespace molkv::jni {
namespace {

constexpr int kSkipSpecialTokens = 1;

jlong Parse(JNIEnv* env, jclass, jbyteArray json) {
  return Guard(env, [&] {
    const std::vector<char> bytes = Bytes(env, json);
    molkv_tokenizer* tokenizer = nullptr;
    Call(env, molkv_tokenizer_parse, bytes.data(), bytes.size(), &tokenizer);
    return ToHandle(tokenizer);
  });
}

void Close(JNIEnv*, jclass, jlong tokenizer) {
  molkv_tokenizer_close(FromHandle<molkv_tokenizer>(tokenizer));
}

jlong VocabularySize(JNIEnv*, jclass, jlong tokenizer) {
  return static_cast<jlong>(
      molkv_tokenizer_vocabulary_size(FromHandle<molkv_tokenizer>(tokenizer)));
}

jlong TokenCount(JNIEnv*, jclass, jlong tokenizer) {
  return static_cast<jlong>(molkv_tokenizer_token_count(FromHandle<molkv_tokenizer>(tokenizer)));
}

jlong Find(JNIEnv* env, jclass, jlong tokenizer, jbyteArray content) {
  return Guard(env, [&] {
    const std::vector<char> bytes = Bytes(env, content);
    return static_cast<jlong>(
        molkv_tokenizer_find(FromHandle<molkv_tokenizer>(tokenizer), bytes.data(), bytes.size()));
  });
}

jlongArray Encode(JNIEnv* env, jclass, jlong tokenizer, jbyteArray text) {
  return Guard(env, [&] {
    const std::vector<char> bytes = Bytes(env, text);
    const auto* const from = FromHandle<molkv_tokenizer>(tokenizer);
    std::vector<int64_t> token_ids;
    int64_t* only_count = nullptr;
    size_t count = 0;
    Call(env, molkv_tokenizer_encode, from, bytes.data(), bytes.size(), only_count, &count);
    token_ids.resize(count);
    if (count > 0) {
      Call(env, molkv_tokenizer_encode, from, bytes.data(), bytes.size(), token_ids.data(), &count);
    }
    return ToLongArray(env, token_ids);
  });
}

jlong CreateStream(JNIEnv* env, jclass, jlong tokenizer) {
  return Guard(env, [&] {
    molkv_text_stream* stream = nullptr;
    Call(env, molkv_text_stream_create, FromHandle<molkv_tokenizer>(tokenizer), kSkipSpecialTokens,
         &stream);
    return ToHandle(stream);
  });
}

void FreeStream(JNIEnv*, jclass, jlong stream) {
  molkv_text_stream_free(FromHandle<molkv_text_stream>(stream));
}

jbyteArray Push(JNIEnv* env, jclass, jlong stream, jlong token_id) {
  return Guard(env, [&] {
    const char* text = nullptr;
    size_t size = 0;
    Call(env, molkv_text_stream_push, FromHandle<molkv_text_stream>(stream), int64_t{token_id},
         &text, &size);
    return ToByteArray(env, text, size);
  });
}

jbyteArray Finish(JNIEnv* env, jclass, jlong stream) {
  return Guard(env, [&] {
    const char* text = nullptr;
    size_t size = 0;
    Call(env, molkv_text_stream_finish, FromHandle<molkv_text_stream>(stream), &text, &size);
    return ToByteArray(env, text, size);
  });
}

}  // namespace

void AddTokenizerMethods(Methods* methods) {
  methods->push_back(Method("tokenizerParse", "([B)J", Parse));
  methods->push_back(Method("tokenizerClose", "(J)V", Close));
  methods->push_back(Method("tokenizerVocabularySize", "(J)J", VocabularySize));
  methods->push_back(Method("tokenizerTokenCount", "(J)J", TokenCount));
  methods->push_back(Method("tokenizerFind", "(J[B)J", Find));
  methods->push_back(Method("tokenizerEncode", "(J[B)[J", Encode));
  methods->push_back(Method("streamCreate", "(J)J", CreateStream));
  methods->push_back(Method("streamFree", "(J)V", FreeStream));
  methods->push_back(Method("streamPush", "(JJ)[B", Push));
  methods->push_back(Method("streamFinish", "(J)[B", Finish));
}

}  // namespace molkv::jni
