import CMolkv

/// The last tokens' rows in the form that a dense graph reads (docs/graph.md, "The window").
///
/// The native core owns the memory; planes are views of it.
public final class ExpertWindow {
  /// For engines in other modules: a `molkv_window`.
  public let handle: OpaquePointer
  public let geometry: molkv_geometry

  /// One layer's rows, oldest first; nil `data` where the model has no such plane.
  public struct Plane {
    public let data: UnsafeMutableRawPointer?
    public let rows: Int
    public let rowBytes: Int
    public let type: molkv_data_type
  }

  /// - Parameters:
  ///   - geometry: of the blob whose rows come.
  ///   - window: W.
  ///   - chunk: the most tokens that one append brings.
  public init(geometry: molkv_geometry, window: Int, chunk: Int) throws {
    guard let window = UInt32(exactly: window), let chunk = UInt32(exactly: chunk) else {
      throw MolkvError(.usage, "a window of \(window) and a chunk of \(chunk)", fix: "use less")
    }
    var rows = geometry
    self.geometry = geometry
    handle = try makeNative { molkv_window_create(&rows, window, chunk, $0, $1) }
  }

  deinit { molkv_window_free(handle) }

  /// Memory of all planes.
  public var bytes: Int { Int(molkv_window_bytes(handle)) }

  /// Forgets all rows.
  public func reset() { molkv_window_reset(handle) }

  /// The rows that the current step reads; valid until the window changes.
  public func plane(_ kind: molkv_plane_kind, layer: Int) throws -> Plane {
    var plane = molkv_plane()
    try callNative { molkv_window_plane(handle, UInt32(layer), kind, &plane, $0) }
    return Plane(
      data: plane.data, rows: Int(plane.rows), rowBytes: Int(plane.row_bytes),
      type: molkv_data_type(rawValue: plane.dtype))
  }

  /// Appends the row of one token.
  func append(row: [UInt8]) throws {
    var index: UInt32 = 0
    try append(row, index: &index, count: 1, rowStride: row.count)
  }

  func append(
    _ rows: UnsafePointer<UInt8>?, index: UnsafePointer<UInt32>?, count: Int, rowStride: Int
  ) throws {
    try callNative {
      molkv_window_append(handle, rows, UInt64(rowStride), index, count, $0)
    }
  }
}
