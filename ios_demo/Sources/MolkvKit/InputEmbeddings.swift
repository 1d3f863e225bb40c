import CMolkv

/// Memory for the input embeddings of a step's new tokens, where rows carry them (docs/graph.md,
/// "The input embedding").
final class InputEmbeddings {
  /// float32 [tokens, d].
  let numbers: UnsafeMutableBufferPointer<Float>
  private let blob: ExpertBlob

  /// - Parameter tokens: the most of one step.
  /// - Returns: nil where the blob's rows carry none.
  init?(of blob: ExpertBlob, tokens: Int) {
    guard blob.embeddingType != MOLKV_NONE else { return nil }
    self.blob = blob
    numbers = .allocate(capacity: tokens * Int(blob.geometry.value_size))
    // What lies behind a step's last token may be anything finite.
    numbers.initialize(repeating: 0)
  }

  deinit { numbers.deallocate() }

  /// Takes the embedding out of one token's row.
  func read(row: [UInt8]) throws {
    var index: UInt32 = 0
    try read(row, index: &index, count: 1)
  }

  func read(_ rows: UnsafePointer<UInt8>?, index: UnsafePointer<UInt32>?, count: Int) throws {
    precondition(count * Int(blob.geometry.value_size) <= numbers.count)
    try callNative {
      molkv_blob_embeddings(blob.handle, rows, index, count, numbers.baseAddress, $0)
    }
  }
}
