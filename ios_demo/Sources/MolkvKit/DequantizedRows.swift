import CMolkv

/// Which vectors of a window: its keys or its values.
enum ExpertVectors: CaseIterable {
  case keys, values

  var plane: molkv_plane_kind { self == .keys ? MOLKV_KEYS : MOLKV_VALUES }
  var scales: molkv_plane_kind { self == .keys ? MOLKV_KEY_SCALES : MOLKV_VALUE_SCALES }
}

extension ExpertWindow {
  /// Elements of one token's keys or values in one layer: N times the vector's size.
  func elements(_ vectors: ExpertVectors) -> Int {
    let size =
      vectors == .keys ? geometry.key_heads * geometry.key_size : geometry.value_size
    return Int(geometry.experts) * Int(size)
  }

  /// Hands out numbers of some rows as they are meant: scale times stored number, in float32.
  ///
  /// - Parameters:
  ///   - rows: of those that the current step reads, from 0.
  ///   - take: called with each element's place, row by row, and its number.
  @inline(__always)
  func dequantize(
    _ vectors: ExpertVectors, layer: Int, rows: Range<Int>, take: (Int, Float) -> Void
  ) throws {
    let stored = try plane(vectors.plane, layer: layer)
    guard let base = stored.data else { return }
    let scales = try plane(vectors.scales, layer: layer)
    precondition(rows.lowerBound >= 0 && rows.upperBound <= stored.rows)
    let data = base + rows.lowerBound * stored.rowBytes
    let width = elements(vectors)
    let group = Int(
      vectors == .keys ? geometry.key_group_size : geometry.value_group_size)
    let scale = scales.data.map { $0 + rows.lowerBound * scales.rowBytes }
    let halfScales = scales.type == MOLKV_FLOAT16
    @inline(__always) func scaleOf(_ place: Int) -> Float {
      guard let scale else { return 1 }
      let index = place / group
      return halfScales
        ? Float(scale.assumingMemoryBound(to: Float16.self)[index])
        : scale.assumingMemoryBound(to: Float.self)[index]
    }
    switch stored.type {
    case MOLKV_INT8:
      let numbers = data.assumingMemoryBound(to: Int8.self)
      for place in 0..<rows.count * width { take(place, Float(numbers[place]) * scaleOf(place)) }
    case MOLKV_INT4:
      let bytes = data.assumingMemoryBound(to: Int8.self)
      for place in 0..<rows.count * width {
        // The first of two in the low four bits; the shifts carry the sign along.
        let pair = bytes[place / 2]
        let number = place % 2 == 0 ? (pair << 4) >> 4 : pair >> 4
        take(place, Float(number) * scaleOf(place))
      }
    case MOLKV_FLOAT16:
      let numbers = data.assumingMemoryBound(to: Float16.self)
      for place in 0..<rows.count * width { take(place, Float(numbers[place]) * scaleOf(place)) }
    default:
      throw MolkvError(
        .blobFormat, "expert rows have the data type \(stored.type.rawValue)", fix: "update molkv")
    }
  }
}

extension ExpertBlob {
  /// sha256 of a row's vectors as float32, little-endian: by layer keys, then values; last the
  /// input embedding, if rows carry it.
  func dequantizedSHA256(of row: [UInt8]) throws -> String {
    // A window of one token: its planes are the row's sections.
    let window = try ExpertWindow(geometry: geometry, window: 1, chunk: 1)
    try window.append(row: row)
    var numbers: [Float] = []
    for layer in 0..<Int(geometry.layers) {
      for vectors in ExpertVectors.allCases {
        try window.dequantize(vectors, layer: layer, rows: 0..<1) { numbers.append($1) }
      }
    }
    if let embeddings = InputEmbeddings(of: self, tokens: 1) {
      try embeddings.read(row: row)
      numbers += embeddings.numbers
    }
    return numbers.withUnsafeBytes { sha256($0) }
  }
}
