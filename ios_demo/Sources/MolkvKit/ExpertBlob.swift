import CMolkv
import Foundation

/// A token's id: its row in the blob.
public typealias TokenID = Int64

/// An open expert blob, whose rows are read by token id with `pread`.
public final class ExpertBlob: @unchecked Sendable {
  // The core lets any thread use the handle, also at once.
  let handle: OpaquePointer
  public let geometry: molkv_geometry
  /// Of the input embedding that every row carries; `MOLKV_NONE` where the dense graph has it.
  public let embeddingType: molkv_data_type
  /// Token ids are 0 to `vocabularySize - 1`.
  public let vocabularySize: Int
  /// Bytes of a row that carry data.
  public let rowSize: Int
  /// Bytes of a row in the file.
  public let rowStride: Int
  /// sha256 of the checkpoint's weights, in hexadecimal.
  public let identity: String

  /// What was read since the blob was opened.
  public struct Reads: Sendable {
    public let rows: UInt64
    public let bytes: UInt64
  }

  /// Opens the only file, or all shards in any order.
  ///
  /// - Parameter readers: threads that read at once, 1 to 64; 0 lets the core choose.
  public init(files: [String], readers: Int = 0) throws {
    guard let threads = UInt32(exactly: readers), threads <= 64 else {
      throw MolkvError(.usage, "readers is \(readers)", fix: "use 0 to 64")
    }
    var options = molkv_blob_options()
    options.struct_size = UInt32(MemoryLayout<molkv_blob_options>.size)
    options.readers = threads
    let paths = files.map { UnsafePointer(strdup($0)) }
    defer { for path in paths { free(UnsafeMutablePointer(mutating: path)) } }
    handle = try makeNative { molkv_blob_open(paths, paths.count, &options, $0, $1) }
    var info = molkv_blob_info()
    molkv_blob_get_info(handle, &info)
    geometry = info.geometry
    embeddingType = molkv_data_type(rawValue: molkv_blob_embedding_dtype(handle))
    vocabularySize = Int(info.vocabulary_size)
    rowSize = Int(info.row_size)
    rowStride = Int(info.row_stride)
    identity = withUnsafeBytes(of: info.identity) { hexadecimal($0) }
  }

  deinit { molkv_blob_close(handle) }

  /// What was read so far.
  public var reads: Reads {
    var stats = molkv_blob_stats()
    molkv_blob_get_stats(handle, &stats)
    return Reads(rows: stats.rows, bytes: stats.bytes)
  }

  /// The bytes of one token's row, its padding included.
  public func row(of tokenID: TokenID) throws -> [UInt8] {
    var row = [UInt8](repeating: 0, count: rowStride)
    try read(tokenID, into: &row)
    return row
  }

  /// Reads one token's row into memory of `rowStride` bytes.
  func read(_ tokenID: TokenID, into row: inout [UInt8]) throws {
    precondition(row.count == rowStride)
    var id = tokenID
    var index: UInt32 = 0
    var distinct = 0
    try callNative { molkv_blob_read(handle, &id, 1, &row, &index, &distinct, $0) }
  }
}

/// Rows that are being read in the background.
final class Prefetch {
  private let handle: OpaquePointer
  private let blob: ExpertBlob  // must outlive the read

  init(_ tokenIDs: ArraySlice<TokenID>, from blob: ExpertBlob) throws {
    self.blob = blob
    handle = try tokenIDs.withUnsafeBufferPointer { ids in
      try makeNative { molkv_prefetch_start(blob.handle, ids.baseAddress, ids.count, $0, $1) }
    }
  }

  deinit { molkv_prefetch_free(handle) }

  /// Waits for the rows, appends them to a window and takes the input embeddings out of them.
  func append(count: Int, to window: ExpertWindow, embeddings: InputEmbeddings? = nil) throws {
    var rows: UnsafePointer<UInt8>?
    var index: UnsafePointer<UInt32>?
    var distinct = 0
    try callNative { molkv_prefetch_wait(handle, &rows, &index, &distinct, $0) }
    try window.append(rows, index: index, count: count, rowStride: blob.rowStride)
    try embeddings?.read(rows, index: index, count: count)
  }
}
