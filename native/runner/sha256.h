// SHA-256 in hexadecimal.

#ifndef MOLKV_RUNNER_SHA256_H_
#define MOLKV_RUNNER_SHA256_H_

#include <cstddef>
#include <memory>
#include <string>

struct evp_md_ctx_st;  // OpenSSL's EVP_MD_CTX

namespace molkv::runner {

// A digest over bytes that come in parts.
class Sha256 {
 public:
  Sha256();
  void Update(const void* data, size_t size);

  // 64 hexadecimal digits; the digest is used up.
  std::string Finish();

 private:
  struct Release {
    void operator()(evp_md_ctx_st* context) const;
  };
  std::unique_ptr<evp_md_ctx_st, Release> context_;
};

// Lower-case hexadecimal.
std::string Hexadecimal(const unsigned char* bytes, size_t size);

// The digest of a file's content. Throws RunnerError if it cannot be read.
std::string FileSha256(const std::string& file);

}  // namespace molkv::runner

#endif  // MOLKV_RUNNER_SHA256_H_
