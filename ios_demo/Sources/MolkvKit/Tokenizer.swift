import CMolkv
import Foundation

/// Text to token ids and back. Special tokens are found in a text, and leave none.
public final class Tokenizer: @unchecked Sendable {
  // Nothing in it changes after it was made, so any thread may use it.
  let handle: OpaquePointer

  /// - Throws: `MolkvError.Kind.tokenizer` if the file cannot be read or used.
  public init(file: String) throws {
    do {
      handle = try makeNative(format: .tokenizer) { molkv_tokenizer_open(file, $0, $1) }
    } catch let error as MolkvError where error.kind == .storage {
      throw MolkvError(.tokenizer, error.problem, fix: error.fix)
    }
  }

  deinit { molkv_tokenizer_close(handle) }

  /// One more than the largest id.
  public var vocabularySize: Int { Int(molkv_tokenizer_vocabulary_size(handle)) }

  public var tokenCount: Int { Int(molkv_tokenizer_token_count(handle)) }

  /// The id of a token by its content.
  public func find(_ content: String) -> TokenID? {
    var content = content
    let id = content.withUTF8 { text in
      text.withMemoryRebound(to: CChar.self) {
        molkv_tokenizer_find(handle, $0.baseAddress, $0.count)
      }
    }
    return id < 0 ? nil : id
  }

  /// The id that ends a text.
  public var endOfText: TokenID? { find("<|endoftext|>") }

  public func encode(_ text: String) throws -> [TokenID] {
    var text = text
    return try text.withUTF8 { utf8 in
      try utf8.withMemoryRebound(to: CChar.self) { bytes in
        var count = 0
        try callNative(format: .tokenizer) {
          molkv_tokenizer_encode(handle, bytes.baseAddress, bytes.count, nil, &count, $0)
        }
        var ids = [TokenID](repeating: 0, count: count)
        try callNative(format: .tokenizer) {
          molkv_tokenizer_encode(handle, bytes.baseAddress, bytes.count, &ids, &count, $0)
        }
        return ids
      }
    }
  }

  public func decode(_ tokenIDs: [TokenID]) throws -> String {
    var size = 0
    try callNative(format: .tokenizer) {
      molkv_tokenizer_decode(handle, tokenIDs, tokenIDs.count, 1, nil, &size, $0)
    }
    var bytes = [CChar](repeating: 0, count: size)
    try callNative(format: .tokenizer) {
      molkv_tokenizer_decode(handle, tokenIDs, tokenIDs.count, 1, &bytes, &size, $0)
    }
    return String(decoding: bytes.prefix(size).map(UInt8.init(bitPattern:)), as: UTF8.self)
  }
}

/// Text that comes token by token, in whole characters and without special tokens.
final class TextStream {
  private let handle: OpaquePointer
  private let tokenizer: Tokenizer  // must outlive the stream

  /// The prompt's text is not handed out, but a character that it leaves unfinished is, once it is
  /// complete.
  init(_ tokenizer: Tokenizer, after promptIDs: [TokenID]) throws {
    self.tokenizer = tokenizer
    handle = try makeNative(format: .tokenizer) {
      molkv_text_stream_create(tokenizer.handle, 1, $0, $1)
    }
    for id in promptIDs { _ = try push(id) }
  }

  deinit { molkv_text_stream_free(handle) }

  /// The whole characters that a token completes, possibly none.
  func push(_ tokenID: TokenID) throws -> String {
    try take { molkv_text_stream_push(handle, tokenID, $0, $1, $2) }
  }

  /// What was held back, an unfinished character as U+FFFD.
  func finish() throws -> String {
    try take { molkv_text_stream_finish(handle, $0, $1, $2) }
  }

  private func take(
    _ body: (
      UnsafeMutablePointer<UnsafePointer<CChar>?>, UnsafeMutablePointer<Int>,
      UnsafeMutablePointer<molkv_error>
    ) -> molkv_status
  ) throws -> String {
    var text: UnsafePointer<CChar>?
    var size = 0
    try callNative(format: .tokenizer) { body(&text, &size, $0) }
    let bytes = UnsafeRawBufferPointer(start: text, count: size)
    return String(decoding: bytes, as: UTF8.self)
  }
}
