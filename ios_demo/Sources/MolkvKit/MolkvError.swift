import CMolkv
import Foundation

/// Everything that molkv refuses, with the place, the value and the fix in words.
public struct MolkvError: Error, Equatable, Sendable {
  /// What kind of thing was refused.
  public enum Kind: String, Sendable, CaseIterable {
    /// A bundle's folder is incomplete, damaged, of another version, or its parts do not match.
    case bundle
    /// An expert blob breaks a rule of docs/format.md.
    case blobFormat
    /// A row does not match its checksum, or cannot be read whole.
    case corruptRow
    /// The tokenizer is missing, unreadable, or not the model's.
    case tokenizer
    /// A token id lies outside the vocabulary.
    case tokenID
    /// No tokens, or more than the context holds.
    case contextLength
    /// The graph engine cannot load or run the dense graph.
    case graph
    /// The system refused to read or write.
    case storage
    /// Less memory than the call needs.
    case outOfMemory
    /// An argument that cannot work.
    case usage
  }

  public let kind: Kind
  /// What is wrong: the file, the field, the value.
  public let problem: String
  /// What to do about it.
  public let fix: String

  public init(_ kind: Kind, _ problem: String, fix: String) {
    self.kind = kind
    self.problem = problem
    self.fix = fix
  }

  /// An error of the native core. `format` says what a broken format means in that call.
  init(native error: molkv_error, format: Kind) {
    let message = withUnsafeBytes(of: error.message) { bytes in
      String(decoding: bytes.prefix { $0 != 0 }, as: UTF8.self)
    }
    let kind: Kind =
      switch error.status {
      case MOLKV_IO: .storage
      case MOLKV_CORRUPT_ROW: .corruptRow
      case MOLKV_OUT_OF_RANGE: .tokenID
      case MOLKV_OUT_OF_MEMORY: .outOfMemory
      case MOLKV_FORMAT, MOLKV_UNSUPPORTED: format
      default: .usage
      }
    // The core's messages end in the fix, in brackets.
    if message.hasSuffix(")"), let start = message.range(of: " (", options: .backwards) {
      self.init(
        kind, String(message[..<start.lowerBound]),
        fix: String(message[start.upperBound...].dropLast()))
    } else {
      self.init(kind, message, fix: "see docs/native.md")
    }
  }
}

extension MolkvError: LocalizedError, CustomStringConvertible {
  public var description: String { "\(problem) (\(fix))" }
  public var errorDescription: String? { problem }
  public var recoverySuggestion: String? { fix }
}

/// Calls a function of the native core that reports a status, and throws what it reports.
public func callNative(
  format: MolkvError.Kind = .blobFormat,
  _ body: (UnsafeMutablePointer<molkv_error>) -> molkv_status
) throws {
  var error = molkv_error()
  guard body(&error) != MOLKV_OK else { return }
  throw MolkvError(native: error, format: format)
}

/// The same for a function that makes a handle, which it hands out through a pointer.
public func makeNative(
  format: MolkvError.Kind = .blobFormat,
  _ body: (UnsafeMutablePointer<OpaquePointer?>, UnsafeMutablePointer<molkv_error>) -> molkv_status
) throws -> OpaquePointer {
  var handle: OpaquePointer?
  try callNative(format: format) { body(&handle, $0) }
  guard let handle else { preconditionFailure("the native core made no handle") }
  return handle
}
