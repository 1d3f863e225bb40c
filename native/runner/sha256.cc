#include "sha256.h"

#include <openssl/evp.h>

#include <new>

#include "file_content.h"

namespace molkv::runner {
namespace {

void Check(int result) {
  if (result != 1) throw std::bad_alloc();  // the only way in which hashing memory fails
}

}  // namespace

void Sha256::Release::operator()(evp_md_ctx_st* context) const { EVP_MD_CTX_free(context); }

Sha256::Sha256() : context_(EVP_MD_CTX_new()) {
  if (context_ == nullptr) throw std::bad_alloc();
  Check(EVP_DigestInit_ex(context_.get(), EVP_sha256(), nullptr));
}

void Sha256::Update(const void* data, size_t size) {
  Check(EVP_DigestUpdate(context_.get(), data, size));
}

std::string Sha256::Finish() {
  unsigned char digest[EVP_MAX_MD_SIZE];
  unsigned int size = 0;
  Check(EVP_DigestFinal_ex(context_.get(), digest, &size));
  return Hexadecimal(digest, size);
}

std::string Hexadecimal(const unsigned char* bytes, size_t size) {
  constexpr char kDigits[] = "0123456789abcdef";
  std::string text;
  for (size_t i = 0; i < size; ++i) {
    text += kDigits[bytes[i] >> 4];
    text += kDigits[bytes[i] & 15];
  }
  return text;
}

std::string FileSha256(const std::string& file) {
  Sha256 digest;
  ReadFile(file, [&](const char* data, size_t size) { digest.Update(data, size); });
  return digest.Finish();
}

}  // namespace molkv::runner
