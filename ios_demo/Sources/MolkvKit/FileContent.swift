import CryptoKit
import Foundation

/// An open file, read with plain `read`: nothing is mapped, so no entitlement for more virtual
/// memory is needed, and a file that shrinks under us is an error instead of a crash.
final class ReadableFile {
  let path: String
  let bytes: Int64
  private let descriptor: Int32

  /// - Throws: `MolkvError` if it is missing, no regular file, or cannot be opened.
  init(_ path: String) throws {
    self.path = path
    descriptor = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK)
    guard descriptor >= 0 else {
      let reason = errno == ENOENT ? "file is missing" : "cannot be read: \(systemMessage(errno))"
      throw MolkvError(.bundle, "\(path): \(reason)", fix: "copy the bundle again")
    }
    var status = stat()
    guard fstat(descriptor, &status) == 0 else {
      let reason = systemMessage(errno)
      close(descriptor)
      throw MolkvError(.storage, "\(path): cannot be read: \(reason)", fix: "copy the bundle again")
    }
    bytes = Int64(status.st_size)
    guard status.st_mode & S_IFMT == S_IFREG else {
      close(descriptor)
      let what = status.st_mode & S_IFMT == S_IFDIR ? "a directory" : "no regular file"
      throw MolkvError(.bundle, "\(path): is \(what)", fix: "copy the bundle again")
    }
  }

  deinit { close(descriptor) }

  /// Hands out the content part by part, and stops between parts when the task is cancelled.
  func forEachPart(_ take: (UnsafeRawBufferPointer) throws -> Void) throws {
    let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: 1 << 20, alignment: 16384)
    defer { buffer.deallocate() }
    while true {
      try Task.checkCancellation()
      let count = read(descriptor, buffer.baseAddress, buffer.count)
      if count == 0 { return }
      if count < 0 {
        if errno == EINTR { continue }
        throw MolkvError(
          .storage, "\(path): cannot be read: \(systemMessage(errno))",
          fix: "copy the bundle again")
      }
      try take(UnsafeRawBufferPointer(rebasing: buffer[..<count]))
    }
  }
}

/// A whole file of at most `limit` bytes.
func readFile(_ path: String, limit: Int64) throws -> Data {
  let file = try ReadableFile(path)
  guard file.bytes <= limit else {
    throw MolkvError(
      .bundle, "\(path): has \(file.bytes) bytes, at most \(limit) are read",
      fix: "copy the bundle again")
  }
  var content = Data(capacity: Int(file.bytes))
  try file.forEachPart { part in
    content.append(contentsOf: part)
    guard content.count <= limit else {
      throw MolkvError(.bundle, "\(path): grows while it is read", fix: "copy the bundle again")
    }
  }
  return content
}

/// The sha256 of a file, in hexadecimal. `progress` is told the bytes of each part.
func sha256(ofFile path: String, progress: (Int64) -> Void = { _ in }) throws -> String {
  var digest = SHA256()
  try ReadableFile(path).forEachPart { part in
    digest.update(bufferPointer: part)
    progress(Int64(part.count))
  }
  return hexadecimal(digest.finalize())
}

/// The sha256 of bytes, in hexadecimal.
func sha256(_ bytes: UnsafeRawBufferPointer) -> String {
  var digest = SHA256()
  digest.update(bufferPointer: bytes)
  return hexadecimal(digest.finalize())
}

/// Bytes as two lower-case digits each.
func hexadecimal(_ bytes: some Sequence<UInt8>) -> String {
  let digits = Array("0123456789abcdef")
  return String(bytes.flatMap { [digits[Int($0 >> 4)], digits[Int($0 & 15)]] })
}

/// The system's words for an `errno`.
func systemMessage(_ error: Int32) -> String { String(cString: strerror(error)) }
