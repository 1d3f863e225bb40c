// The part of CryptoKit that MolkvKit uses, on OpenSSL.

import COpenSSL

/// SHA-256, as CryptoKit has it.
public struct SHA256 {
  /// A finished digest: its bytes.
  public struct Digest: Sequence {
    let bytes: [UInt8]

    public func makeIterator() -> IndexingIterator<[UInt8]> { bytes.makeIterator() }
  }

  // A value type in CryptoKit; here every copy shares the context, and nobody copies.
  private final class Context {
    let pointer = EVP_MD_CTX_new()
    init() { precondition(EVP_DigestInit_ex(pointer, EVP_sha256(), nil) == 1) }
    deinit { EVP_MD_CTX_free(pointer) }
  }

  private let context = Context()

  public init() {}

  public mutating func update(bufferPointer: UnsafeRawBufferPointer) {
    precondition(
      EVP_DigestUpdate(context.pointer, bufferPointer.baseAddress, bufferPointer.count) == 1)
  }

  public func finalize() -> Digest {
    var bytes = [UInt8](repeating: 0, count: 32)
    precondition(EVP_DigestFinal_ex(context.pointer, &bytes, nil) == 1)
    return Digest(bytes: bytes)
  }
}
